"""Write a recipe for data and a model: each guess with its reason beside it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

import yaml

from flexray.config import parse_config
from flexray.config.data import FROM_TEMPLATES
from flexray.data import scan
from flexray.data.record import listed, lookup
from flexray.errors import DataError, first_few
from flexray.models.checkpoint import check_checkpoint
from flexray.models.hub import has_chat_template
from flexray.preflight.init.guess import Guess, guess_fields
from flexray.preflight.init.peek import Peek, peek

TRIED = 10
"""Rows that are read by the finished recipe."""
QUESTIONS = (
    ("What is the capital of Finland?", "Helsinki"),
    ("Who wrote The Old Man and the Sea?", "Ernest Hemingway"),
    ("What is the chemical symbol for tin?", "Sn"),
    ("In which year did the Berlin Wall fall?", "1989"),
)
SENTENCES = (
    ("The currency of Japan is the", "yen"),
    ("The author of The Old Man and the Sea is", "Ernest Hemingway"),
    ("The chemical symbol of tin is", "Sn"),
    ("The highest mountain of Japan is", "Mount Fuji"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A recipe that was checked, and what to know about it."""

    name: str
    text: str  # YAML
    guesses: dict[str, Guess]  # by key of the recipe
    problems: tuple[str, ...]  # of the first rows


def draft_recipe(data: str, model: str) -> Draft:
    """Look at data and a model, and write the recipe that fits.

    Args:
        data: a path, a URL or a glob of files, the folder of a data set, or owner/name of the hub.
        model: as `model.path`.

    Raises:
        DataError: the data cannot be read, or no field has texts that could be questions.
        ModelError: the model cannot be run.
        ConfigError: the hub's cache does not have the data or the model; or the data are one part of a data
            set that needs others.
    """
    check_checkpoint(model)
    found = peek(data)
    stem, _ = os.path.splitext(os.path.basename(data.rstrip("/*")))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-")[:60] or "questions"
    fields = guess_fields(found.records) if found.kind == "records" else {}
    if found.kind == "records" and not fields:
        known = first_few(map(repr, found.records[0]), 20)
        raise DataError(
            f"{data}: no field has texts that could be questions; it has {known}. Name the field as "
            "data.fields.question in a recipe of your own."
        )
    guesses = {f"data.fields.{key}": guess for key, guess in fields.items()}
    if not fields:
        guesses["data.kind"] = Guess(value=found.kind, why="its records have the fields of this data set")
    guesses["prompt.chat"] = _chat(found.kind, model)
    chat = bool(guesses["prompt.chat"].value)
    guesses["generation.max_new_tokens"] = _length(found, fields, chat=chat)
    text = _write(name, found, fields, guesses, model)
    config = parse_config(yaml.safe_load(text), source="the recipe")
    tried = config.data.model_copy(update={"limit": TRIED})
    problems = tuple(error for error in scan(tried)["error"].to_pylist() if error)
    return Draft(name=name, text=text, guesses=guesses, problems=problems)


def _chat(kind: str, model: str) -> Guess:
    if kind in FROM_TEMPLATES:
        return Guess(value=False, why="its questions are sentences to complete")
    if has_chat_template(model):
        return Guess(value=True, why="the model comes with a chat template")
    return Guess(value=False, why="the model has no chat template")


def _length(found: Peek, fields: dict[str, Guess], *, chat: bool) -> Guess:
    """How long answers may become."""
    words, least = 0, 32 if chat else 12
    if "answers" in fields and fields["answers"].value:
        values = (lookup(record, fields["answers"].value) for record in found.records)
        lists = (value if isinstance(value, list) else listed(value) or [value] for value in values)
        words = max((len(t.split()) for texts in lists for t in texts if isinstance(t, str)), default=0)
    if not words:
        return Guess(value=max(least, 16), why="for a short phrase")
    tokens = min(256, max(least, 4 + 3 * words))
    return Guess(value=tokens, why=f"the longest accepted answer that was looked at has {words} words")


def _write(name: str, found: Peek, fields: dict[str, Guess], guesses: dict[str, Guess], model: str) -> str:
    completes = found.kind in FROM_TEMPLATES
    chat = bool(guesses["prompt.chat"].value)
    lines = [
        "# Made by `flexray init`; a line with `guessed` is worth a look.",
        f"output: {_yaml(f'out/{name}')}",
        "",
        "data:",
        f"  name: {_yaml(name)}",
        *(f"  {key}: {_yaml(value)}" for key, value in found.source.items()),
    ]
    if not fields:
        lines.append(_line("  kind", guesses["data.kind"]))
    else:
        lines += ["  fields:", *(_line(f"    {key}", guess) for key, guess in fields.items())]
        if fields["paraphrases"].value is None:
            lines += [
                "  include_question: true",
                "  # `flexray paraphrase` makes paraphrases; then: paraphrase_files: THAT_FILE.jsonl",
            ]
    lines += ["", "model:", f"  path: {_yaml(model)}", "", "prompt:", _line("  chat", guesses["prompt.chat"])]
    if completes:
        lines += [
            "  instruction: Complete each sentence with a name or a short phrase.",
            '  question_template: "\\nSentence: {question}"',
            '  answer_prefix: "\\nCompletion:"',
        ]
    else:
        lines.append("  instruction: Answer each question with a name or a short phrase.")
    lines += [
        "  few_shots:  # they show the form of an answer; better: some of your own kind that are not asked",
        *(
            f"    - {{question: {_yaml(question)}, answer: {_yaml(answer)}}}"
            for question, answer in (SENTENCES if completes else QUESTIONS)
        ),
        "",
        "methods:  # each answers every question",
        "  - attention  # one answer, which sees all paraphrases; none of these sees another",
        "  - origin     # of the first paraphrase alone, to compare with",
        "",
        "generation:",
        _line("  max_new_tokens", guesses["generation.max_new_tokens"]),
        f"  stop_at_newline: {_yaml(not chat)}",
    ]
    return "\n".join(lines) + "\n"


def _line(key: str, guess: Guess) -> str:
    return f"{key}: {_yaml(guess.value)}  # guessed: {guess.why}"


def _yaml(value: Any) -> str:
    """A value as JSON, which is YAML; a plain name without quotes."""
    is_name = isinstance(value, str) and re.fullmatch(r"[\w./][\w./-]*", value)
    if is_name and isinstance(yaml.safe_load(value), str):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
