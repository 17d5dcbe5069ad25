"""Read everything back, and tell what is missing, doubled, damaged or unaccounted."""
