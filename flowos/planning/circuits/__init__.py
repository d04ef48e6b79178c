"""Which lanes carry a slice's circuits?"""
