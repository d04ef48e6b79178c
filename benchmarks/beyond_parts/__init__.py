"""The parts of the benchmark of full mode: cases, and which of them answer what."""
