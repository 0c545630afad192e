"""Films for demonstrations: rendered films and Big Buck Bunny."""
