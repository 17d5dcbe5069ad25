"""Small data sets in the shapes in which real ones are published."""

from pathlib import Path
from typing import Any

from flexray.config import DataConfig
from tests.unit.data.conftest import data_config, write

FORMATS = ["jsonl", "json", "parquet"]


WEBQA = [{"qId": f"w{i}", "qText": f"who is {i}?", "answers": [f"a{i}", "b"]} for i in range(5)]


HUB_WEBQA = [{"url": "http://x/topic", "question": f"who is {i}?", "answers": [f"a{i}"]} for i in range(5)]


TRIVIAQA = [
    {
        "question_id": f"tc_{i}",
        "question": f"Who is {i}?",
        "answer": {"value": f"A{i}", "aliases": [f"A{i}", "Aha", "Aha"], "normalized_aliases": ["aha"]},
        "search_results": {"title": ["long"]},
    }
    for i in range(5)
]


Rows = dict[str, list[Any]]


def pararel(folder: Path, patterns: Rows, facts: Rows, **keys: Any) -> DataConfig:
    """A folder as published: relation -> patterns, and relation -> facts."""
    for relation, found in patterns.items():
        write(folder / "patterns" / f"{relation}.jsonl", [{"pattern": p, "tense": "past"} for p in found])
    for relation, found in facts.items():
        write(folder / "facts" / f"{relation}.jsonl", found)
    return data_config(folder, kind="pararel", **keys)


def fact(i: int, **changes: Any) -> dict[str, Any]:
    good = {"sub_label": f"Sub{i}", "obj_label": f"Obj{i}", "uuid": f"u{i}"} | changes
    return {k: v for k, v in good.items() if v is not ...}


PATTERNS = ["[X] was born in [Y].", "[X] is from [Y] .", "[Y] is the home of [X].", "[X], a [Y]-born person."]


HUB_MYRIAD = [
    {
        "uuid": f"m{i}",
        "rel_uri": f"P{i % 2}",
        "sub_ent": f"Sub{i}",
        "obj_aliases": [f"Obj{i}", "alias"],
        "template": f"{kind} {n}: [X] is [Y].",
        "is_manual": kind == "manual",
    }
    for n in range(3)  # the rows of a fact are not next to each other
    for i in range(4)
    for kind in ("auto", "manual")
]


def myriad_facts(tmp_path: Path, templates: list[Any], facts: list[Any], **keys: Any) -> DataConfig:
    files = {"template_files": str(write(tmp_path / "templates.jsonl", templates))}
    return data_config(write(tmp_path / "facts.jsonl", facts), kind="myriadlama", **files | keys)


def myriad_fact(i: int, **changes: Any) -> dict[str, Any]:
    good = {"uuid": f"m{i}", "rel_uri": "P1", "sub_ent": f"Sub{i}", "obj_exps": [f"Obj{i}"]} | changes
    return {k: v for k, v in good.items() if v is not ...}


TEMPLATES = [
    {"rel_uri": "P1", "template": f"{kind} {n}: [X] is [Y].", "type": kind}
    for kind in ("auto", "manual")
    for n in range(6)
]
