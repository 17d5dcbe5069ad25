"""Damage of an output folder: the error for a file that cannot be trusted, and the report of `verify`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from flexray.errors import OutputError

DamageKind = Literal[
    "run_record_missing",
    "run_record_damaged",
    "plan_missing",
    "plan_damaged",
    "manifest_damaged",
    "manifest_misplaced",
    "manifest_of_another_run",
    "data_missing",
    "data_damaged",
    "data_schema",
    "other_version",
    "unreadable",
]
REPAIR_SHARD = "`flexray repair` moves the shard aside. Then run again: the shard is computed again."


class DamageError(OutputError):
    """A file of the output folder cannot be trusted. The message says which file, why, and what to do."""

    def __init__(self, path: str, what: str, advice: str, kind: DamageKind) -> None:
        super().__init__(f"{path}: {what}. {advice} `flexray verify` checks the whole folder.")
        self.path, self.what, self.advice = path, what, advice
        self.kind: DamageKind = kind

    @classmethod
    def unreadable(cls, path: str, error: OSError) -> DamageError:
        """The storage cannot read the file, so its state is unknown."""
        advice = "Check access to the storage and try again."
        return cls(path, f"cannot be read ({error})", advice, "unreadable")

    def __reduce__(self) -> tuple[type[DamageError], tuple[str, str, str, DamageKind]]:
        return DamageError, (self.path, self.what, self.advice, self.kind)


FindingKind = (
    DamageKind
    | Literal[
        "unaccounted",
        "unknown_rows",
        "doubled_rows",
        "incomplete_shard",
        "missing_rows",
        "orphans",
        "foreign_files",
    ]
)
HARMLESS = ("orphans", "foreign_files")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One problem, or something harmless that the user should know."""

    kind: FindingKind
    path: str
    what: str
    advice: str
    name: str = ""
    """The file, relative to the output folder; "" if it is not one file."""
    shard_ids: tuple[str, ...] = ()
    """The committed shards that must be computed again."""

    @property
    def harmless(self) -> bool:
        """Whether the output is correct nevertheless."""
        return self.kind in HARMLESS

    def __str__(self) -> str:
        return f"{self.path}: {self.what}. {self.advice}"


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """The state of an output folder, in numbers. An output row is identified by its method and row id."""

    planned_rows: int
    """Planned output rows: one for each planned row id and method."""
    planned_shards: int
    committed_shards: int
    """Shards whose manifest and data file can both be trusted."""
    rows: int
    """Committed rows that can be read."""
    missing: int
    """Planned rows that are not committed, including the rows of damaged files."""
    doubled: int
    """Rows that are committed more than once."""
    damaged: int
    """Files (run record, plan, manifests, data) that cannot be trusted."""
    unaccounted: int
    """Rows that are not planned in their shard, and counts in a manifest that disagree with the rows."""
    findings: tuple[Finding, ...]
    orphans: tuple[str, ...]
    """Files and manifests of failed attempts, of replaced revisions and of withdrawn shards; readers ignore
    them. A record of a compact file is named as a file in it."""
    foreign: tuple[str, ...]
    """Files and folders in the output folder that flexray did not write; readers ignore them."""

    @property
    def ok(self) -> bool:
        """Whether every planned row exists exactly once and unchanged."""
        return not (self.missing or self.doubled or self.damaged or self.unaccounted)

    def summary_line(self) -> str:
        """The counts on one line."""
        return (
            f"rows={self.rows} missing={self.missing} doubled={self.doubled} "
            f"damaged={self.damaged} unaccounted={self.unaccounted}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The whole report, for JSON."""
        return {"ok": self.ok, **dataclasses.asdict(self)}
