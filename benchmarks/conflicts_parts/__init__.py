"""The parts of the conflict hunt: how bad it gets by chance, when looked for, and on a real store."""
