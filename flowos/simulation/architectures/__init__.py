"""How do other ways to share a cell do on real slices? Monolithic, shared state, two-level offers."""
