"""The production loops in virtual time: for replays of real jobs, and for experiments."""
