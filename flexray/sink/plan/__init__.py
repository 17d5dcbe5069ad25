"""The plan: sources and what is committed -> the files that say which rows are computed, by which methods."""
