"""The published encoders: registry, modules, cards; see README.md."""
