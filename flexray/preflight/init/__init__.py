"""From data and a model to a recipe that runs: what was guessed, and why, stands in it."""

from flexray.preflight.init.draft import Draft, draft_recipe

__all__ = ["Draft", "draft_recipe"]
