"""Answer rows in this process, without Ray."""

from flexray.llm.answers import Answer, Answers
from flexray.llm.llm import LLM

__all__ = ["LLM", "Answer", "Answers"]
