"""Frozen encoders: loading them, their features, kNN and linear probes."""
