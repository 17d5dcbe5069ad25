"""Real files in each format, and the configuration that reads them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexray.config import DataConfig, parse_config
from flexray.data import (
    PLAN_SCHEMA,
    check_summaries,
    find_repeats,
    last_asked,
    list_ranges,
    mark_repeats,
    read_range,
    scan,
    to_questions,
    up_to,
)
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
    """The questions of all rows. They are read in one piece and in small ones, which give the same."""
    table = scan(config)
    assert read_in_parts(config, 100).equals(table)
    return to_questions(table, dataset=config.name, split=config.split)


def read_in_parts(config: DataConfig, target_bytes: int) -> pa.Table:
    """What `scan` makes, as several processes would make it."""
    tables, summaries = [], []
    for part in pickle.loads(pickle.dumps(list_ranges(config, target_bytes))):
        reader = read_range(config, part)
        tables.append(pa.concat_tables([PLAN_SCHEMA.empty_table(), *reader]))
        summaries.append(pickle.loads(pickle.dumps(reader.summary)))
    check_summaries(config, summaries)
    last = last_asked(config, summaries)
    tables = [up_to(table, config, last) for table in tables]
    whole = pa.concat_tables(tables)
    repeats = find_repeats(whole["row_id"])
    marked, offset = [], 0
    for table in tables:
        mine = [repeat for repeat in repeats if offset <= repeat.index < offset + len(table)]
        firsts = [whole.slice(repeat.first, 1).to_pylist()[0] for repeat in mine]
        places = [(row["source_file"], row["source_row"]) for row in firsts]
        marked.append(mark_repeats(table, mine, places, summaries[0].id_field, offset=offset))
        offset += len(table)
    return pa.concat_tables(marked)


@pytest.fixture
def only(tmp_path: Path) -> Callable[..., Question]:
    """Write a good record and then the given one; return what became of the given one."""

    def _only(bad: Any, **settings: Any) -> Question:
        path = write(tmp_path / "in.jsonl", [record(1), bad])
        good, question = read_all(data_config(path, **settings))
        assert good.error == ""
        return question

    return _only
