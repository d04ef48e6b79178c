"""Many runs of a simulation, side by side: what is varied, what came of it, and a page of that."""
