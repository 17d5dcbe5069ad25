"""What is killed, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = ("before", "during", "after")

# What is written -> (pattern of its name, whether the driver writes it, how often at least; None: each shard)
FILES = {
    "plan": ("plan/*.parquet", True, 1),
    "record": ("_run.json", True, 1),
    "lock": ("_lock-*.json", True, 1),
    "data": ("data/*", False, None),
    "manifest": ("_manifests/*", False, None),
}

KINDS = (
    "driver",
    "engine",
    "node",
    *(f"{file} {step}" for file in FILES for step in STEPS),
)


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: of a process or node once some shards are committed and some time has passed, or of
    whichever process writes some file for the nth time."""

    kind: str
    shards: int = 0
    seconds: float = 0.0
    skip: int = 0

    @property
    def is_timed(self) -> bool:
        return self.kind in ("driver", "engine", "node")

    @property
    def hits_driver(self) -> bool:
        return self.kind == "driver" or (not self.is_timed and FILES[self.kind.split()[0]][1])

    @property
    def moment(self) -> str:
        """When, for people."""
        if self.is_timed:
            return f"{self.seconds:.2f} s after {self.shards} shards"
        return f"at write {self.skip + 1}"

    def fault(self, ledger: Path) -> dict[str, Any]:
        """As FLEXRAY_FAULTS has it."""
        file, step = self.kind.split()
        return {
            "point": f"sink.write.{step}",
            "match": {"name": FILES[file][0]},
            "action": "kill",
            "skip": self.skip,
            "ledger": str(ledger),
        }


def draw(kind: str, rnd: random.Random, *, shards: int, start_seconds: float) -> Kill:
    """A kill at a random moment of a run that has so many shards and begins to commit after so long."""
    if kind in ("driver", "engine", "node"):
        after = rnd.randrange(-shards, shards)  # half of them before anything is committed
        return Kill(kind, shards=max(0, after), seconds=rnd.uniform(0, start_seconds if after <= 0 else 0.2))
    times = FILES[kind.split()[0]][2] or shards
    return Kill(kind, skip=rnd.randrange(times))
