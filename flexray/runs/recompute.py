"""Compute committed rows again, and compare them with what is stored."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config import MethodConfig, RunConfig, parse_config
from flexray.config.plugins import load_plugins
from flexray.console.progress import LogLine
from flexray.errors import OutputError
from flexray.evaluation import to_table
from flexray.pipeline.answer import Answerer
from flexray.pipeline.prepare import prepare_shard
from flexray.runs.fingerprint import code_version, fingerprint_parts
from flexray.runs.job import check_job
from flexray.sink import Manifest, OutputFolder, RunRecord, load_run, specs_of, whole_shards
from flexray.sink.read.committed import load_shard
from flexray.sink.records import RUN_FILE
from flexray.sink.records.rows import keys_of
from flexray.sink.run.other_run import other_parts

VALUES = (
    *("error", "prediction", "token_ids", "finish_reason", "paraphrase_predictions", "samples"),
    "candidate_scores",
)
"""The columns that are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A row that was computed otherwise than it is stored."""

    method: str
    row_id: str
    column: str
    stored: str
    computed: str
    why: str
    """Why it need not be equal; "": it should be."""

    def __str__(self) -> str:
        where = f"{self.method}, row {self.row_id!r}: {self.column}"
        note = f" ({self.why})" if self.why else ""
        return f"{where} is stored as {self.stored}, and computed as {self.computed}{note}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recomputed:
    """What came of computing rows again."""

    equal: int
    error_rows: int
    """Chosen rows that are stored as errors, and not computed."""
    differences: tuple[Difference, ...]
    not_comparable: Mapping[str, int]
    """Of all that were computed again: reason -> rows that need not be equal for it."""

    @property
    def wrong(self) -> int:
        """Rows that differ and should be equal."""
        return sum(not difference.why for difference in self.differences)

    @property
    def ok(self) -> bool:
        """Whether all rows are equal that should be."""
        return not self.wrong

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    def summary_line(self) -> str:
        """One line for people and programs."""
        return (
            f"recomputed={self.equal + len(self.differences)} equal={self.equal} differ={self.wrong} "
            f"not_comparable={sum(self.not_comparable.values())} error_rows={self.error_rows}"
        )


def recompute(output: str, count: int, *, seed: int = 0, log: LogLine = print) -> Recomputed:
    """Compute random committed rows of a run again, in this process, by the configuration in its record.

    A row's answer depends on the row alone (`engine.deterministic`), so it must come out as it is stored, bit
    for bit; unless it was computed by other code, on another kind of device, at other sizes or by a fallback.
    Nothing is written into the folder.

    Args:
        count: rows of the output, each the answer of one method to one question, at most.
        seed: another one chooses other rows.

    Raises:
        UserError: there is no run, its data, model or adapters are not those of its record, or they cannot
            be used on this machine.
    """
    folder = OutputFolder(output)
    record = load_run(folder)
    if not isinstance(record, RunRecord):
        raise OutputError(
            f"{folder}: holds a run of a flexray whose runs could not grow. Bring its rows into a table with "
            "`flexray adopt` first."
        )
    config = _config_of(record, folder.where(RUN_FILE))
    load_plugins(config.plugins)
    job = check_job(config, None)
    parts = fingerprint_parts(job.config)
    parts["prompt"]["few_shot_data"] = record.parts["prompt"]["few_shot_data"]
    if lines := other_parts(record, parts):
        raise OutputError(
            f"{folder}: its rows cannot be computed again, as this differs from the run's record: "
            f"{'; '.join(lines)}. Restore what it was computed from."
        )
    specs, names = specs_of(folder, record), record.selection.methods
    committed = {
        shard_id: manifest
        for shard_id, manifest in whole_shards(folder, record).items()
        if set(specs[shard_id].methods) <= set(names)
    }
    chosen = _choose(committed, count, seed)
    answerer, differences, reasons = Answerer(job.config), [], Counter[str]()
    equal = error_rows = 0
    for shard_id, places in chosen.items():
        manifest = committed[shard_id]
        stored = load_shard(folder, manifest).take(places)
        stored = stored.filter(pc.equal(stored["error"], ""))
        error_rows += len(places) - stored.num_rows
        if not stored.num_rows:
            continue
        log(f"{shard_id}: {stored.num_rows} rows are computed again")
        only = frozenset(stored["row_id"].to_pylist())
        answered = answerer.answer(prepare_shard(specs[shard_id], job.config, only))
        computed = to_table(answered, names)
        why = _not_comparable(manifest, answered.engine_stats, job.config)
        for found in _compare(stored, computed, why, reasons):
            if found is None:
                equal += 1
            else:
                differences.append(found)
    return Recomputed(
        equal=equal, error_rows=error_rows, differences=tuple(differences), not_comparable=dict(reasons)
    )


def _config_of(record: RunRecord, source: str) -> RunConfig:
    """The configuration in a record, which has all fields: as in a recipe, a method may only set its own."""
    defaults = {name: field.default for name, field in MethodConfig.model_fields.items()}
    methods = [
        {name: value for name, value in method.items() if name == "kind" or value != defaults.get(name)}
        for method in record.config["methods"]
    ]
    return parse_config(record.config | {"methods": methods}, source=source)


def _choose(committed: Mapping[str, Manifest], count: int, seed: int) -> dict[str, list[int]]:
    """Places of rows in their shards, by shard."""
    total = sum(manifest.rows for manifest in committed.values())
    places = sorted(random.Random(seed).sample(range(total), min(count, total)))
    found: dict[str, list[int]] = {}
    start, left = 0, deque(places)
    for shard_id, manifest in committed.items():
        while left and left[0] < start + manifest.rows:
            found.setdefault(shard_id, []).append(left.popleft() - start)
        start += manifest.rows
    return found


def _not_comparable(manifest: Manifest, stats: Mapping[str, object], config: RunConfig) -> str:
    """Why the rows of a shard need not come out as they are stored; "": they must."""
    if not config.engine.deterministic:
        return "engine.deterministic is off"
    code = code_version()
    if any(then.source_sha256 != code.source_sha256 for then in manifest.code) or not manifest.code:
        return "computed by other code"
    before, now = manifest.engine_stats.get("rounding") or {}, stats.get("rounding") or {}
    assert isinstance(now, dict)
    differ = [f"{key}: {before.get(key)}, now {now[key]}" for key in now if before.get(key) != now[key]]
    return "; ".join(differ)


def _compare(
    stored: pa.Table, computed: pa.Table, why: str, reasons: Counter[str]
) -> Iterator[Difference | None]:
    """Each stored row with the one that was computed; None: they are equal."""
    again = dict(zip(keys_of(computed), computed.to_pylist(), strict=True))
    for key, row in zip(keys_of(stored), stored.to_pylist(), strict=True):
        new = again[key]
        reason = why or row["fallback_reason"] or new["fallback_reason"]
        dense = {row["backend_used"], new["backend_used"]} - {"flex", ""}
        if not reason and dense:
            reason = f"attention by {' and '.join(sorted(dense))} rounds otherwise beside other rows"
        if reason:
            reasons[reason] += 1
        # rows of `confidence` had no samples before they were kept
        compared = (name for name in VALUES if name != "samples" or row[name])
        column = next((name for name in compared if row[name] != new[name]), None)
        if column is None:
            yield None
        else:
            values = {"stored": f"{row[column]!r:.200}", "computed": f"{new[column]!r:.200}"}
            yield Difference(method=row["method"], row_id=row["row_id"], column=column, why=reason, **values)
