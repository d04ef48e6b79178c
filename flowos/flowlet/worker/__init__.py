"""What does the process of one engine do? `python -m flowos.flowlet.worker` is started there."""
