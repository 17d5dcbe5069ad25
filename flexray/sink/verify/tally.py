"""Compare committed rows with the plan. Planned rows are only counted; only the keys of other rows are
kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flexray.errors import first_few
from flexray.sink.folder import OutputFolder
from flexray.sink.plan.shards import Plan
from flexray.sink.records import DATA_FOLDER, PLAN_FOLDER, AnyRecord, Manifest, manifest_name
from flexray.sink.records.damage import REPAIR_SHARD, DamageError, Finding, FindingKind

Key = tuple[str, str]  # method, row id

_AGAIN = "Run again: only missing rows are computed."
_FAULT = "This is a fault of flexray; please report it. A run into another output folder has each row once."


@dataclass
class Tally:
    """Counts and findings so far. A row that is not planned, or is planned in another shard, is called a
    stray."""

    folder: OutputFolder
    run: AnyRecord | None = None
    plan: Plan | None = None
    rows: int = 0
    doubled: int = 0
    missing: int = 0
    damaged: int = 0
    unaccounted: int = 0
    findings: list[Finding] = field(default_factory=list)
    trusted: set[str] = field(default_factory=set)  # the readable shards
    _strays: dict[Key, list[str]] = field(default_factory=dict)  # stray -> the shards that contain it
    _repeated: dict[Key, str] = field(default_factory=dict)  # row -> the shard that contains it twice
    _lacking: dict[str, list[Key]] = field(default_factory=dict)  # readable shard -> its missing rows
    _seen: Counter[Key] = field(default_factory=Counter)  # all rows; only used if there is no plan

    def note(
        self, kind: FindingKind, name: str, what: str, advice: str, shard_ids: Iterable[str] = ()
    ) -> None:
        """Add a finding about a file."""
        path = self.folder.where(name)
        self.findings.append(
            Finding(kind=kind, path=path, what=what, advice=advice, name=name, shard_ids=tuple(shard_ids))
        )

    def damage(self, name: str, error: DamageError, shard_ids: Iterable[str] = ()) -> None:
        """Count a file that cannot be trusted, and add a finding."""
        self.damaged += 1
        self.note(error.kind, name, error.what, error.advice, shard_ids)

    def count(self, manifest: Manifest, keys: list[Key], faults: Sequence[str]) -> None:
        """Count the rows of a readable shard, and add findings about them."""
        shard_id = manifest.shard_id
        self.trusted.add(shard_id)
        self.rows += len(keys)
        for fault in faults:
            self.unaccounted += 1
            self.note("unaccounted", manifest.file, fault, REPAIR_SHARD, [shard_id])
        if self.run is None or self.plan is None:
            self._seen.update(keys)
            return
        planned = self.plan.keys(shard_id)
        if keys == planned:
            return
        here, known = Counter(keys), set(planned)
        unknown = [key for key in keys if key not in known]
        for key in unknown:
            self._strays.setdefault(key, []).append(shard_id)
        self._repeated.update({key: shard_id for key in known if here[key] > 1})
        self._lacking[shard_id] = [key for key in planned if key not in here]
        if unknown:
            self.unaccounted += len(unknown)
            what = f"has {len(unknown)} row(s) that are not planned in this shard ({_some(unknown)})"
            self.note("unknown_rows", manifest.file, what, REPAIR_SHARD, [shard_id])
        elif len(keys) == len(planned) == len(here):
            self.unaccounted += 1
            self.note("unaccounted", manifest.file, "its rows are in another order", REPAIR_SHARD, [shard_id])

    def finish(self) -> None:
        """Count doubled and missing rows, after all shards were counted."""
        if self.run is None or self.plan is None:
            self._finish_without_plan()
            return
        homes = self.plan.shards_of(list(self._strays))
        doubled = dict.fromkeys(self._repeated)
        shards = dict.fromkeys(self._repeated.values())
        for key, places in self._strays.items():
            at_home = any(
                home in self.trusted and key not in self._lacking.get(home, ()) for home in homes.get(key, ())
            )
            if len(places) + at_home > 1:
                doubled[key] = None
                shards.update(dict.fromkeys(places))
        if doubled:
            self.doubled = len(doubled)
            what = f"{len(doubled)} row(s) are committed more than once ({_some(list(doubled))})"
            self.note("doubled_rows", DATA_FOLDER, what, REPAIR_SHARD, shards)
        if twice := self.plan.doubled():
            self.doubled += len(twice)
            what = f"{len(twice)} row(s) are planned in two shards ({_some(twice)})"
            self.note("doubled_rows", PLAN_FOLDER, what, _FAULT)
        for shard_id in self.plan:
            if shard_id not in self.trusted:
                self._miss(shard_id, self.plan.keys(shard_id))
            elif shard_id in self._lacking:
                self._miss(shard_id, self._lacking[shard_id])

    def _miss(self, shard_id: str, keys: list[Key]) -> None:
        missing = [key for key in keys if key not in self._strays]
        if not missing:
            return
        self.missing += len(missing)
        lacks = f"lacks {len(missing)} planned row(s) ({_some(missing)})"
        name = manifest_name(shard_id)
        if shard_id in self.trusted:
            self.note("incomplete_shard", name, f"shard {shard_id} {lacks}", REPAIR_SHARD, [shard_id])
        else:
            what = f"shard {shard_id} is not committed or is damaged: it {lacks}"
            self.note("missing_rows", name, what, _AGAIN)

    def _finish_without_plan(self) -> None:
        doubled = [key for key, times in self._seen.items() if times > 1]
        if doubled:
            self.doubled = len(doubled)
            what = f"{len(doubled)} row(s) are committed more than once ({_some(doubled)})"
            self.note(
                "doubled_rows", DATA_FOLDER, what, "Restore the plan first; then verify names the shards."
            )
        if self.run:
            self.missing = max(0, self.run.planned_rows - len(self._seen))


def _some(keys: list[Key]) -> str:
    return first_few(f"{row_id} by {method}" for method, row_id in keys)
