"""A shard's rows become visible, whole or not at all: data file, then manifest."""
