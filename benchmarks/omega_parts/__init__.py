"""The parts of the Omega benchmark: what is read of the reference, run of ours, and compared."""
