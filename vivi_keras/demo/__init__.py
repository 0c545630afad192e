"""Films for demonstrations: rendered ones, and Big Buck Bunny."""
