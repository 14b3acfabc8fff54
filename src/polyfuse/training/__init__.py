"""The training loop, the feature cache, checkpoints, tracking."""
