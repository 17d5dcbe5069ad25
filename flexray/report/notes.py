"""What is counted over the rows of a run, for `show` and for the page; it does not grow with their number."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.evaluation import ScoreCounts, accuracy_by_method
from flexray.evaluation.accuracy import row_scores
from flexray.evaluation.metrics import title
from flexray.report.formatting import NOTHING, count, percent
from flexray.report.odd import Said
from flexray.report.questions import answered_questions
from flexray.report.run_folder import RunFolder
from flexray.report.tables import Table, Toned

MAX_SHARDS = 256
"""Shards that `look_at` reads; of more, so many at even distances."""
MAX_KINDS = 1_000
"""Kinds of errors that are counted."""
_FAULT = re.compile(r"^.*?, row \d+, (field .*?) \(value: ", re.DOTALL)
_NUMBER = re.compile(r"\d[\d.,]*")


@dataclass(slots=True)
class RunNotes:
    """Counts over the rows that are added."""

    run: RunFolder
    prompt_tokens: Counter[int] = field(default_factory=Counter)  # length -> answered rows
    generated_tokens: Counter[int] = field(default_factory=Counter)  # the same
    shards_read: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)  # of `look_at`: `answered_questions`
    _accuracy: dict[str, ScoreCounts] = field(default_factory=dict)
    _kinds: Counter[str] = field(default_factory=Counter)  # kind of error -> rows
    _errors: dict[str, str] = field(default_factory=dict)  # kind of error -> the first one
    _said: dict[str, Said] = field(default_factory=dict)

    @property
    def accuracy(self) -> dict[str, ScoreCounts]:
        """By method, in the run's order, by the headline metric."""
        return {m: self._accuracy[m] for m in self.run.seen.methods if m in self._accuracy}

    @property
    def accuracy_table(self) -> Table:
        """A line for each method. Without accuracy if nothing is scored."""
        scored = any(counts.scored for counts in self.accuracy.values())
        rows: list[list[str | Toned]] = []
        for method, n in self.accuracy.items():
            errors = count(n.errors)
            rows.append([method, count(n.rows), Toned(errors, "bad") if n.errors else errors])
            if scored:
                low, high = map(percent, n.interval or (None, None))
                rows[-1] += [count(n.scored), count(n.correct), Toned(percent(n.accuracy), "strong")]
                rows[-1].append(f"{low} to {high}" if n.interval else NOTHING)
        heads = ["method", "#rows", "#errors"]
        return Table(
            heads + ["#scored", "#right", f"#{title(self.run.headline.name)}", "#95% interval"] * scored, rows
        )

    @property
    def errors(self) -> list[tuple[str, int]]:
        """Of each kind of error one of them, and the rows, the most frequent first."""
        return [(self._errors[kind], rows) for kind, rows in self._kinds.most_common()]

    @property
    def warnings(self) -> list[str]:
        """What looks odd, with its likely cause and what to do."""
        known = [self.run.headline.warning] if self.run.headline.warning else []
        methods = (method for method in self.run.seen.methods if method in self._said)
        return known + [w for m in methods for w in self._said[m].warnings(m, self.run.record.config)]

    def add(self, table: pa.Table) -> None:
        """Count the rows (ROW_SCHEMA) of a shard."""
        self.shards_read += 1
        metric = self.run.headline.metric
        for method, counts in accuracy_by_method([table], metric).items():
            self._accuracy[method] = self._accuracy.get(method, ScoreCounts()) + counts
        failed = pc.not_equal(table["error"], "")
        answered = table.filter(pc.invert(failed))
        self.prompt_tokens.update(_counts(answered["prompt_tokens"]))
        self.generated_tokens.update(_counts(pc.list_value_length(answered["token_ids"])))
        for error, rows in _counts(table["error"].filter(failed)).items():
            kind = kind_of(error)
            if kind in self._kinds or len(self._kinds) < MAX_KINDS:
                self._kinds[kind] += rows
                self._errors.setdefault(kind, error)
        for row in (
            answered.group_by(["method", "prediction", "finish_reason"])
            .aggregate([([], "count_all")])
            .to_pylist()
        ):
            said = self._said.setdefault(row["method"], Said())
            said.add(row["prediction"], row["finish_reason"], row["count_all"])
        if metric is None:
            for method, said in self._said.items():
                said.add_scored(answered.filter(pc.equal(answered["method"], method)))


def look_at(run: RunFolder, *, examples: int = 5, only_wrong: bool = False) -> RunNotes:
    """Read the committed rows of a run.

    Args:
        examples: questions to keep with their answers. They are drawn by a digest of the row id, so that the
            same run shows the same ones.
        only_wrong: keep questions only that a method has answered wrongly.
    """
    shards = list(run.manifests)
    read = min(len(shards), MAX_SHARDS)
    chosen = {shards[i * len(shards) // read] for i in range(read)}
    notes, drawn = RunNotes(run), dict[bytes, dict[str, Any]]()
    for table in run.tables(chosen):
        notes.add(table)
        metric, ids = run.headline.metric, table["row_id"]
        if only_wrong and examples:
            ids = ids.filter(pc.fill_null(pc.less(row_scores(table, metric), 1), False))
        smallest = heapq.nsmallest(examples, ids.unique().to_pylist(), _digest)
        kept = table.filter(pc.is_in(table["row_id"], pa.array(smallest, pa.string())))
        drawn |= {_digest(found["row_id"]): found for found in answered_questions(kept, metric)}
        drawn = dict(heapq.nsmallest(examples, drawn.items()))
    notes.examples = list(drawn.values())
    return notes


def kind_of(error: str) -> str:
    """The reason of a row's error, without what only this row has.

    >>> kind_of("a.jsonl, row 7, field 'q': element 2 of 3 is empty (value: ''). Correct it.")
    "field 'q': element # of # is empty"
    """
    fault = _FAULT.match(error)
    return _NUMBER.sub("#", fault[1] if fault else error)


def _digest(row_id: str) -> bytes:
    return blake2b(row_id.encode(), digest_size=8).digest()


def _counts(column: pa.ChunkedArray) -> dict[Any, int]:
    return {item["values"]: item["counts"] for item in column.value_counts().to_pylist()}
