"""The tasks of evaluation: labelled images, each with its splits."""
