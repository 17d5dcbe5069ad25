"""From a question to token ids. Ids are concatenated; they are never decoded and tokenised again."""

from flexray.prompts.builder import PromptBuilder

__all__ = ["PromptBuilder"]
