"""What does an agent drive on a machine that has no fabric? Its processes, cores and devices."""
