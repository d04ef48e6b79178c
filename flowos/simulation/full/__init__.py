"""The production scheduling code, several processes of it, in virtual time on one store."""
