"""Whether a cell's shared state keeps its laws: now, over the history that is kept, and live."""
