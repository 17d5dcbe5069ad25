"""One run at a time works in an output folder."""
