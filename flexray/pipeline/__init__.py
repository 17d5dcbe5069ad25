"""Rows through Ray Data: prepare, answer, commit."""
