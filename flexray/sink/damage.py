"""A file of the output folder that cannot be trusted."""

from __future__ import annotations

from typing import Literal

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
REPAIR_SHARD = "`flexray repair` moves the shard aside; then run again: it is computed again."


class DamageError(OutputError):
    """A file of the output folder that cannot be trusted: which, why, and what to do."""

    def __init__(self, path: str, what: str, advice: str, kind: DamageKind) -> None:
        super().__init__(f"{path}: {what}. {advice} `flexray verify` checks the whole folder.")
        self.path, self.what, self.advice = path, what, advice
        self.kind: DamageKind = kind

    @classmethod
    def unreadable(cls, path: str, error: OSError) -> DamageError:
        """The storage does not give the file: nothing is known of the file itself."""
        advice = "Check access to the storage and try again."
        return cls(path, f"cannot be read ({error})", advice, "unreadable")

    def __reduce__(self) -> tuple[type[DamageError], tuple[str, str, str, DamageKind]]:
        return DamageError, (self.path, self.what, self.advice, self.kind)
