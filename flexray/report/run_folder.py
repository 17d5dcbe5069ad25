"""An output folder as the page reads it, shard by shard: what cannot be trusted is noted and left out."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config import parse_evaluation
from flexray.errors import ConfigError, OutputError
from flexray.evaluation import ScoreCounts, accuracy_by_method, make_metrics
from flexray.evaluation.answer_metrics import find_lemmatizer
from flexray.evaluation.metrics import EXACT_MATCH, Metric
from flexray.sink import AnyRecord, DamageError, Manifest, OutputFolder
from flexray.sink.commit.manifests import find_manifests
from flexray.sink.lock.file import Owner
from flexray.sink.lock.hold import is_lock
from flexray.sink.read.committed import load_shard, only_planned
from flexray.sink.read.visible import View, look

MAX_ERRORS = 500  # on the page
_ERROR_KEYS = ["row_id", "error", "source_file", "source_row"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The metric that a run's recipe compares methods by."""

    name: str
    metric: Metric | None  # None: exact match, which the rows have
    warning: str = ""
    """Why it is exact match, and not what the recipe names."""


@dataclass
class RunFolder:
    """A run, in progress or finished."""

    folder: OutputFolder
    record: AnyRecord
    seen: View
    manifests: dict[str, Manifest]
    """Of the committed shards, by shard id; a shard whose data turn out to be damaged leaves it."""
    damage: list[DamageError]
    owners: list[Owner] = field(default_factory=list)
    """Who holds the folder; a process that has certainly ended is left out."""

    @classmethod
    def open(cls, url: str, *, everything: bool = False) -> RunFolder:
        """Read the run record and all manifests.

        Args:
            everything: also methods and rows that the last recipe does not name.

        Raises:
            OutputError: the folder holds no run, or cannot be listed.
            DamageError: the run record cannot be trusted.
        """
        folder = OutputFolder(url)
        record, seen = look(folder, everything=everything)
        found = find_manifests(folder, record.fingerprint)
        manifests = only_planned(found.visible(), record)
        shown = {shard_id: manifest for shard_id, manifest in manifests.items() if seen.has(manifest)}
        return cls(folder, record, seen, shown, list(found.damage.values()), _owners(folder))

    @functools.cached_property
    def headline(self) -> Headline:
        """Exact match if the recipe's headline metric is not known in this process."""
        try:
            settings = parse_evaluation(self.record.config.get("evaluation", {}), ())
            name, metric = next(iter(make_metrics(settings, find_lemmatizer()).items()))
        except ConfigError as e:  # of a plug-in, or of another version
            return Headline(name=EXACT_MATCH, metric=None, warning=f"scored by exact match, as {e}")
        return Headline(name=name, metric=None if name == EXACT_MATCH else metric)

    def tables(self, only: Container[str] | None = None) -> Iterator[pa.Table]:
        """The committed rows, a table (ROW_SCHEMA) a shard; each file is checked, one is held at a time.

        Args:
            only: ids of shards. None: all.
        """
        for shard_id, manifest in list(self.manifests.items()):
            if only is not None and shard_id not in only:
                continue
            try:
                table = load_shard(self.folder, manifest)
            except DamageError as e:
                self.damage.append(e)
                del self.manifests[shard_id]
                continue
            if (seen := self.seen.of_shard(shard_id, table)).num_rows:
                yield seen


def _owners(folder: OutputFolder) -> list[Owner]:
    try:
        files = [folder.read_if_there(name) for name in folder.list() if is_lock(name)]
    except OSError as e:
        raise OutputError(f"{folder}: cannot be listed: {e}") from e
    owners = [Owner.parse(data) for data in files if data is not None]
    return [owner for owner in owners if owner is not None and not owner.is_dead()]


class RowNotes:
    """Counts over all rows, and the first error rows; it does not grow with their number."""

    def __init__(self, metric: Metric | None = None) -> None:
        self._metric = metric  # None: exact match
        self.accuracy: dict[str, ScoreCounts] = {}  # by method
        self.prompt_tokens: Counter[int] = Counter()  # length -> answered rows
        self.generated_tokens: Counter[int] = Counter()  # the same
        self.backends: Counter[tuple[str, str]] = Counter()  # requested, used -> rows
        self.errors: list[dict[str, Any]] = []  # the first MAX_ERRORS: _ERROR_KEYS and `method_list`

    @property
    def error_rows(self) -> int:
        """Rows whose error is in `errors`."""
        return sum(len(error["method_list"]) for error in self.errors)

    def watch(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Hand on the tables (ROW_SCHEMA), one at a time, and take notes of each."""
        for table in tables:
            self._note(table)
            yield table

    def _note(self, table: pa.Table) -> None:
        for method, found in accuracy_by_method([table], self._metric).items():
            self.accuracy[method] = self.accuracy.get(method, ScoreCounts()) + found
        failed = pc.not_equal(table["error"], "")
        answered = table.select(["prompt_tokens", "token_ids"]).filter(pc.invert(failed))
        self.prompt_tokens.update(_counts(answered["prompt_tokens"]))
        self.generated_tokens.update(_counts(pc.list_value_length(answered["token_ids"])))
        pairs = table.group_by(["backend_requested", "backend_used"]).aggregate([([], "count_all")])
        for pair in pairs.to_pylist():
            self.backends[pair["backend_requested"], pair["backend_used"]] += pair["count_all"]
        # the rows of one question are in one table
        errors = table.filter(failed).group_by(_ERROR_KEYS, use_threads=False).aggregate([("method", "list")])
        self.errors += errors.slice(0, MAX_ERRORS - len(self.errors)).to_pylist()


def _counts(column: pa.ChunkedArray) -> dict[int, int]:
    return {item["values"]: item["counts"] for item in column.value_counts().to_pylist()}
