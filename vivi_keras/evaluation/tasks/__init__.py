"""The evaluation tasks: labelled images and their splits."""
