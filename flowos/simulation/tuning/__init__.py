"""Tuning the planner's weights: replayed logs, an evolution of the weights, and an honest gate."""
