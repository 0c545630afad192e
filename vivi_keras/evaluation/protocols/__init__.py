"""How features or encoders are scored on a task."""
