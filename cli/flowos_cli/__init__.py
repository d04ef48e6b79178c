"""The `flowos` command: what a person or a script sees of the cell."""
