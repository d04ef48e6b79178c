"""What people write: cell files, slice files, presets and amounts with their units.

Reading is strict. A document that could mean two things is refused, with its line and the way out;
what comes back is always a value of `flowos.model`, checked as a whole.
"""
