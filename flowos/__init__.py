"""Flow OS plans, commits, builds, runs and frees slices of a cell of unlike AI engines."""

__version__ = "0.1.0"
