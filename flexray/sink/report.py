"""What verifying an output folder found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong."""

    path: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}. {self.advice}"


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """The state of an output folder, counted."""

    planned_rows: int
    planned_shards: int
    committed_shards: int
    """Shards whose manifest and data file can both be trusted."""
    rows: int
    """Committed rows that can be read."""
    missing: int
    """Planned rows without a committed row; those of a damaged file are among them."""
    doubled: int
    """Row ids that are committed more than once."""
    damaged: int
    """Files (run record, plan, manifests, data) that cannot be trusted."""
    unaccounted: int
    """Rows that their shard's plan does not know, and sums that disagree with the rows."""
    findings: tuple[Finding, ...]
    orphans: tuple[str, ...]
    """Files that no manifest names; readers ignore them."""

    @property
    def ok(self) -> bool:
        """Whether every planned row is there, once, as it was written."""
        return not (self.missing or self.doubled or self.damaged or self.unaccounted)

    def summary_line(self) -> str:
        """The counts on one line."""
        return (
            f"rows={self.rows} missing={self.missing} doubled={self.doubled} "
            f"damaged={self.damaged} unaccounted={self.unaccounted}"
        )
