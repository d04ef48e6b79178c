"""The loops of a cell: sans-I/O machines, and the thin shell that runs them against a store."""
