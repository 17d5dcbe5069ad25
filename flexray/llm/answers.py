"""The answers that `LLM.answer` returns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer of one method to one row. The fields are columns of the output; see docs/output.md."""

    row: int
    """Index of the row among those that were asked."""
    row_id: str
    method: str
    text: str
    """The answer; "" for an error row."""
    token_ids: tuple[int, ...]
    correct: bool | None
    """By exact match; None: nothing to score against, or an error row."""
    paraphrase_predictions: tuple[str, ...]
    samples: tuple[str, ...]
    logprobs: tuple[float, ...] | None
    """The log-probability of each of `token_ids`; None, as the next four: without `logprobs`, or an error."""
    logprob_sum: float | None
    logprob_mean: float | None
    top_token_ids: tuple[tuple[int, ...], ...] | None
    """For each of `token_ids` the most likely tokens in its place, the best first."""
    top_logprobs: tuple[tuple[float, ...], ...] | None
    candidate_scores: tuple[float, ...] | None
    """Of each candidate, in order; None: without `candidates`, or an error."""
    finish_reason: str
    backend_used: str
    fallback_reason: str
    error: str
    """ "" for a good row."""


class Answers(list[Answer]):
    """One answer for each row and method: those to the first row by all methods, then those to the second."""

    def __init__(self, table: pa.Table, num_methods: int):
        names = [field.name for field in dataclasses.fields(Answer) if field.name not in ("row", "text")]
        for index, row in enumerate(table.select([*names, "prediction"]).to_pylist()):
            text = row.pop("prediction")
            values: dict[str, Any] = {name: _tuples(v) for name, v in row.items()}
            self.append(Answer(row=index // num_methods, text=text, **values))
        self._table = table

    def to_arrow(self) -> pa.Table:
        """All columns of the output, a row an answer."""
        return self._table

    def to_pandas(self) -> pandas.DataFrame:
        """The same as a DataFrame. Raises ImportError if pandas is not installed."""
        return self._table.to_pandas()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
