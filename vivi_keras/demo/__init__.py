"""Films for demonstrations: rendered, of Freedoom, and Big Buck Bunny."""
