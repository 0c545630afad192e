"""Frozen encoders: loading them, their features, kNN and linear probes."""


class CannotScore(ValueError):
    """Raised if a protocol cannot score a module on a task, with the reason."""
