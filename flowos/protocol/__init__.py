"""The rules of the shared state: what each step of a slice's life compares and writes.

Pure functions of a CellView: they return a `Proposal` (a transaction and what follows from it), or
None where the rules do not allow the step now. Nothing else in Flow OS writes claims, placements,
orders or grants.
"""
