"""Data sets made from a run's committed rows: paraphrases that a model wrote, or its confidences.

Both are records {id, question, paraphrases, answers, relation, num_manual}, and confidences where they are
known, which `data.fields` and `data.paraphrase_files` read. The same rows always give the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flexray.config import RunConfig
from flexray.errors import ConfigError, OutputError
from flexray.evaluation.answer_metrics import normalize_answer
from flexray.sink import OutputFolder, read_committed
from flexray.sink.folder import split_path

RECORD_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("question", pa.string()),
        pa.field("paraphrases", pa.list_(pa.string())),
        pa.field("confidences", pa.list_(pa.float64())),  # null: unknown
        pa.field("answers", pa.list_(pa.string())),  # null: nothing to score against
        pa.field("relation", pa.string()),  # null: none
        pa.field("num_manual", pa.int32()),
        pa.field("candidates", pa.list_(pa.string())),  # null: none of its own
    ]
)
_COLUMNS = [
    "row_id", "source_id", "question", "paraphrases", "confidences", "answers", "relation", "num_manual",
    "candidates", "samples", "error",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """The data set that was written."""

    path: str
    records: int
    errors: int
    """Error rows, which are left out."""
    paraphrases: int

    def summary_line(self) -> str:
        """One line for people and scripts."""
        counts = f"records={self.records} paraphrases={self.paraphrases} left_out_errors={self.errors}"
        return f"{self.path}: {counts}"


def check_export(config: RunConfig, kind: Literal["sampled", "confidence"], path: str) -> None:
    """Check before anything is computed that the run has this one method and that the file can be written.

    Raises:
        ConfigError: the run has other methods.
        OutputError: the path names no such file, or its folder cannot be written.
    """
    if [method.kind for method in config.methods] != [kind]:
        found = ", ".join(method.kind for method in config.methods)
        raise ConfigError(
            f"methods: this job needs {kind} and no other, found {found}. "
            f"Write `methods: [{{kind: {kind}, samples: 8, temperature: 1.0}}]`."
        )
    if not path.endswith((".jsonl", ".parquet")):
        raise OutputError(f"{path}: name a file that ends in .jsonl or .parquet.")
    split_path(path)[0].prepare()


def few_shot_runs(config: RunConfig) -> dict[str, list[str]]:
    """The output folder of each run that samples are drawn in, and how it overrides the configuration."""
    sets = config.prompt.few_shot_sets
    if not sets:
        return {config.output: []}
    outputs = [f"{config.output.rstrip('/')}/set-{number}" for number in range(len(sets))]
    return {
        output: [
            f"output={json.dumps(output)}",
            "prompt.few_shot_sets=[]",
            f"prompt.few_shots={json.dumps([few_shot.model_dump() for few_shot in few_shots])}",
        ]
        for output, few_shots in zip(outputs, sets, strict=True)
    }


def write_paraphrases(folders: Sequence[OutputFolder], path: str, *, keep: int) -> Exported:
    """Write the samples of each question (method sampled) as its paraphrases: the first of each folder, then
    the second ones, and so on.

    A sample is dropped if it is empty or, once case, punctuation and articles are normalised, equal to the
    question, to one of its paraphrases or to an earlier sample. A question is left out if it is an error row
    in all folders.

    Args:
        folders: of one or several runs over the same questions.
        path: path or URL of a .jsonl or .parquet file; an earlier one is replaced.
        keep: the most paraphrases of a question.

    Raises:
        OutputError: the folder holds no run or damage, or the file cannot be written.
    """

    first, *others = folders
    further: list[dict[str, list[str]]] = []
    for other in others:
        tables = (table.filter(pc.equal(table["error"], "")) for table in read_committed(other))
        columns = ((table[name].to_pylist() for name in ("row_id", "samples")) for table in tables)
        further.append({row_id: samples for part in columns for row_id, samples in zip(*part, strict=True)})

    def change(row: dict[str, Any]) -> dict[str, Any]:
        drawn = [row["samples"], *(samples.get(row["row_id"], []) for samples in further)]
        known = [row["question"], *row["paraphrases"]]
        texts = (text for texts in zip_longest(*drawn, fillvalue="") for text in texts)
        error = "" if any(drawn) else row["error"]
        paraphrases = new_texts(known, texts)[:keep]
        return row | {"paraphrases": paraphrases, "confidences": None, "error": error}

    return _write(first, path, change)


def write_confidences(folder: OutputFolder, path: str) -> Exported:
    """Write each question with its paraphrases and their confidences (method confidence).

    Args and errors are those of `write_paraphrases`.
    """
    return _write(folder, path, lambda row: row)


def new_texts(known: Sequence[str], texts: Iterable[str]) -> list[str]:
    """The texts in order, without empty ones and without copies of each other or of the known ones.

    >>> new_texts(["Who wrote Emma?"], ["who wrote Emma", "", "Emma is by whom?", "Emma is by whom"])
    ['Emma is by whom?']
    """
    seen = {"", *map(normalize_answer, known)}
    found = []
    for text in texts:
        if (normal := normalize_answer(text)) not in seen:
            seen.add(normal)
            found.append(" ".join(text.split()))
    return found


def _write(folder: OutputFolder, path: str, change: Any) -> Exported:
    where, name = split_path(path)
    errors = paraphrases = records = 0

    def rows() -> Iterator[list[dict[str, Any]]]:
        nonlocal errors, paraphrases, records
        for table in read_committed(folder):
            found = table.select(_COLUMNS).to_pylist()
            good = [row for row in map(change, found) if not row["error"]]
            errors += len(found) - len(good)
            records += len(good)
            paraphrases += sum(len(row["paraphrases"]) for row in good)
            yield [
                {field.name: row.get(field.name) for field in RECORD_SCHEMA}
                | {"id": row["source_id"] or row["row_id"], "relation": row["relation"] or None}
                for row in good
            ]

    data = _to_parquet(rows()) if name.endswith(".parquet") else _to_jsonl(rows())
    try:
        where.write_bytes(name, data)
    except OSError as e:
        raise OutputError(f"{where.where(name)}: cannot be written: {e}. Name another file.") from e
    return Exported(path=where.where(name), records=records, errors=errors, paraphrases=paraphrases)


def _to_parquet(parts: Iterable[list[dict[str, Any]]]) -> bytes:
    file = io.BytesIO()
    with pq.ParquetWriter(file, RECORD_SCHEMA, compression="zstd") as writer:
        for part in parts:
            writer.write_table(pa.Table.from_pylist(part, schema=RECORD_SCHEMA))
    return file.getvalue()


def _to_jsonl(parts: Iterable[list[dict[str, Any]]]) -> bytes:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for part in parts for row in part)
    return "".join(lines).encode()
