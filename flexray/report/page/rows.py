"""What the page tells of the rows, taken in one pass; what is kept does not grow with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from flexray.evaluation import MethodAccuracy, accuracy_by_method

MAX_ERRORS = 500  # on the page
_ERROR_COLUMNS = ["row_id", "error", "source_file", "source_row", "method"]


@dataclass(frozen=True, slots=True)
class RowError:
    """An error of a question, which most often is that of all methods."""

    row_id: str
    error: str
    source_file: str
    source_row: int
    methods: list[str] = field(default_factory=list)


class RowNotes:
    """Counts over all rows that were watched, and the first error rows."""

    def __init__(self) -> None:
        self.accuracy: dict[str, MethodAccuracy] = {}  # by method
        self.prompt_tokens: Counter[int] = Counter()  # length -> answered rows
        self.generated_tokens: Counter[int] = Counter()  # the same
        self.backends: Counter[tuple[str, str]] = Counter()  # requested, used -> rows
        self.errors: dict[tuple[str, str], RowError] = {}  # the first MAX_ERRORS, by row id and error

    @property
    def error_rows(self) -> int:
        """Rows whose error is in `errors`."""
        return sum(len(error.methods) for error in self.errors.values())

    def watch(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Hand on the tables (ROW_SCHEMA), one at a time, and take notes of each."""
        for table in tables:
            self._note(table)
            yield table

    def _note(self, table: pa.Table) -> None:
        for method, found in accuracy_by_method([table]).items():
            self.accuracy[method] = self.accuracy.get(method, MethodAccuracy()) + found
        failed = pc.not_equal(table["error"], "")
        answered = table.select(["prompt_tokens", "token_ids"]).filter(pc.invert(failed))
        self.prompt_tokens.update(_counts(answered["prompt_tokens"]))
        self.generated_tokens.update(_counts(pc.list_value_length(answered["token_ids"])))
        pairs = table.group_by(["backend_requested", "backend_used"]).aggregate([([], "count_all")])
        for pair in pairs.to_pylist():
            self.backends[pair["backend_requested"], pair["backend_used"]] += pair["count_all"]
        if len(self.errors) < MAX_ERRORS:
            self._note_errors(table.select(_ERROR_COLUMNS).filter(failed))

    def _note_errors(self, failed: pa.Table) -> None:
        for row_id, error, source_file, source_row, method in zip(
            *(column.to_pylist() for column in failed.columns), strict=True
        ):
            key = row_id, error
            if key not in self.errors and len(self.errors) < MAX_ERRORS:
                self.errors[key] = RowError(row_id, error, source_file, source_row)
            if key in self.errors:
                self.errors[key].methods.append(method)


def _counts(column: pa.ChunkedArray) -> dict[int, int]:
    return {item["values"]: item["counts"] for item in column.value_counts().to_pylist()}
