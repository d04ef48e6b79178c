"""The parts of the comparison of architectures: cells with their loads, and who is compared."""
