"""Training: setup, the loop, checkpoints, resuming, signals."""
