"""W1 in words, for whole jobs: questions as JSON lines, and a recipe for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flexray.config import RunConfig, parse_config

WORDS = (
    "which", "city", "river", "mountain", "king", "book", "song", "year", "language", "country", "people",
    "war", "film", "team", "name", "old", "new",
)  # fmt: skip
WORDINGS = 5
WORDS_EACH, DIGITS = 12, 7
"""Of a wording. With SmolLM2's tokenizer and `\\nQ:` it has 24 tokens, as in W1: a digit is one."""
SHOT_WORDS = 14
"""Of a few-shot's question; so the context has 136 tokens, as in W1."""


def write_questions(path: Path, rows: int) -> Path:
    """Made-up questions of five wordings."""
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            wordings = [wording(row, number) for number in range(WORDINGS)]
            record = {"id": f"q{row}", "question": wordings[0], "paraphrases": wordings, "answers": ["x"]}
            file.write(json.dumps(record) + "\n")
    return path


def wording(row: int, number: int) -> str:
    """One wording of a row's question."""
    words = (WORDS[(row * 7 + number * 5 + i * (number + 3)) % len(WORDS)] for i in range(WORDS_EACH))
    return f"{' '.join(words)} {row:0{DIGITS}}?"


def recipe(folder: Path, model: Path, shard_rows: int) -> dict[str, Any]:
    """Of a run of `questions.jsonl` in the folder: 16 new tokens, nothing stops an answer but EOS."""
    shots = [
        {"question": " ".join(WORDS[:SHOT_WORDS]), "answer": "an answer of some words"} for _ in range(5)
    ]
    return {
        "output": str(folder / "out"),
        "data": {"name": "bench", "files": str(folder / "questions.jsonl"), "shard_rows": shard_rows},
        "model": {"path": str(model)},
        "prompt": {"instruction": "Answer each question with one short phrase at most.", "few_shots": shots},
        "generation": {"max_new_tokens": 16, "stop_at_newline": False},
        "engine": {"strict": True},
        # random weights say tokens that the tokenizer does not know: answers without a text
        "limits": {"stop_early": False},
    }


def make_config(folder: Path, model: Path, rows: int, shard_rows: int) -> RunConfig:
    """Write so many questions into the folder; the configuration of their run."""
    write_questions(folder / "questions.jsonl", rows)
    return parse_config(recipe(folder, model, shard_rows), source="benchmark")
