"""The Ray Data pipeline of a run: prepare, answer and commit shards."""
