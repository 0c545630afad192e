"""Protocols that score features or encoders on a task."""
