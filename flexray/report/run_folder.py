"""An output folder as the page reads it, shard by shard: what cannot be trusted is noted and left out."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterator
from dataclasses import dataclass

import pyarrow as pa

from flexray.config import parse_evaluation
from flexray.errors import ConfigError, OutputError
from flexray.evaluation import make_metrics
from flexray.evaluation.answer_metrics import find_lemmatizer
from flexray.evaluation.metrics import EXACT_MATCH, Metric
from flexray.sink import AnyRecord, DamageError, Manifest, OutputFolder
from flexray.sink.commit.manifests import find_manifests
from flexray.sink.lock.file import Owner
from flexray.sink.lock.hold import read_locks
from flexray.sink.read.committed import load_shard, only_planned
from flexray.sink.read.visible import View, look, with_accounting
from flexray.sink.records.rows import account


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The metric that a run's recipe compares methods by."""

    name: str
    metric: Metric | None  # None: exact match, which the rows have
    warning: str = ""  # why it is exact match, and not what the recipe names


@dataclass
class RunFolder:
    """A run, in progress or finished."""

    folder: OutputFolder
    record: AnyRecord
    seen: View
    manifests: dict[str, Manifest]
    """Of the committed shards, by shard id. When a shard's table is read, a damaged one leaves it, and one of
    which only some rows are seen gets the numbers of these alone."""
    damage: list[DamageError]
    owners: list[Owner]  # who holds the folder; a process that has certainly ended is left out

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
            seen = self.seen.of_shard(shard_id, table)
            if len(seen) < len(table):
                self.manifests[shard_id] = with_accounting(manifest, account(seen))
            if len(seen):
                yield seen


def _owners(folder: OutputFolder) -> list[Owner]:
    try:
        owners = map(Owner.parse, read_locks(folder).values())
    except OSError as e:
        raise OutputError(f"{folder}: cannot be listed: {e}") from e
    return [owner for owner in owners if owner is not None and not owner.is_dead()]
