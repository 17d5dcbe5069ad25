"""Start a run in an output folder, go on with it, make its record again, or discard it."""
