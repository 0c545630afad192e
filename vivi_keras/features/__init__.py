"""Encoders of saved modules: loading, features, probes and fine-tuning."""


class CannotScore(ValueError):
    """Raised if a module cannot be scored on a task; the message says why."""
