"""The nouns of a cell: what exists, what is asked for, what is held, and what was decided."""
