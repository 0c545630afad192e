"""Scores as tables, comparisons and pictures."""
