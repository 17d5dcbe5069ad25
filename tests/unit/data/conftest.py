"""Real files in each format, and the configuration that reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexray.config import DataConfig, parse_config
from flexray.data import scan, to_questions
from flexray.data.question import Question


def record(i: int, **changes: Any) -> dict[str, Any]:
    """A good record; a change to ... removes the field."""
    good = {
        "id": f"q{i}",
        "question": f"What is {i}?",
        "paraphrases": [f"{i} is what?", f"Tell me: what is {i}?"],
        "answers": [str(i)],
    }
    return {k: v for k, v in (good | changes).items() if v is not ...}


def write(path: Path, records: list[Any], *, row_group_size: int = 4) -> Path:
    """Write records in the format of the extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
    elif path.suffix == ".json":
        path.write_text(json.dumps(records, indent=1))
    else:
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=row_group_size)
    return path


def data_config(files: Any, **settings: Any) -> DataConfig:
    """A checked DataConfig, as a run would have it."""
    files = [str(f) for f in files] if isinstance(files, list) else str(files)
    tree = {"output": "out", "model": {"path": "m"}, "data": {"name": "d", "files": files} | settings}
    return parse_config(tree, source="test").data


def read_all(config: DataConfig) -> list[Question]:
    """The questions of all rows, after one scan."""
    return to_questions(scan(config), dataset=config.name, split=config.split)


@pytest.fixture
def only(tmp_path: Path) -> Callable[..., Question]:
    """Write a good record and then the given one; return what became of the given one."""

    def _only(bad: Any, **settings: Any) -> Question:
        path = write(tmp_path / "in.jsonl", [record(1), bad])
        good, question = read_all(data_config(path, **settings))
        assert good.error == ""
        return question

    return _only
