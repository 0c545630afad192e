"""A training run on disk: its work directory, checkpoints, batches."""
