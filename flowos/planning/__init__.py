"""Pure verbs over a CellView: which engines, which lanes, and why not."""
