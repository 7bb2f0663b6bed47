"""State, optimizer, step, loop and checkpoints of a training run."""
