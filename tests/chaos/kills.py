"""What is killed or fails, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faulty_s3 import Fault, answer, cut_request, drop_answer

STEPS = ("before", "during", "after")

# What is written -> (pattern of its name, whether the driver writes it, how often at least; None: each shard)
FILES = {
    "plan": ("plan/*.parquet", True, 2),
    "record": ("_run.json", True, 2),
    "lock": ("_lock-*.json", True, 2),
    "data": ("data/*", False, None),
    "manifest": ("_manifests/*", False, None),
}

# What a storage does to requests -> how often, one after the other; None: until the start has ended
STORAGE: dict[str, tuple[Fault, int | None]] = {
    "busy": (answer(503, "SlowDown"), 3),
    "cut": (cut_request, 1),
    "answer lost": (drop_answer, 1),
    "outage": (answer(503, "SlowDown"), None),
}

_TIMED = ("driver", "engine", "node")
KINDS = (*_TIMED, *(f"{file} {step}" for file in FILES for step in STEPS))
"""Kinds of kills of a run into a local folder."""
KINDS_ON_S3 = (
    *_TIMED,
    *(f"{file} {step}" for file in ("data", "manifest") for step in ("before", "after")),
    *(f"storage {fault}" for fault in STORAGE),
)
"""Kinds of kills, and of faults of the storage, of a run into a bucket. A put is atomic there, so nothing
happens during a write."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: of a process or node once some shards are committed and some time has passed, or of
    whichever process writes some file for the nth time. Or a fault of the storage at the nth write."""

    kind: str
    shards: int = 0
    seconds: float = 0.0
    skip: int = 0
    file: str = ""
    """Of a storage fault: what is written, of FILES."""

    @property
    def is_timed(self) -> bool:
        return self.kind in _TIMED

    @property
    def is_storage(self) -> bool:
        return self.kind.startswith("storage ")

    @property
    def hits_driver(self) -> bool:
        """Whether the driver dies of it."""
        return self.kind == "driver" or (
            not self.is_timed and not self.is_storage and FILES[self.kind.split()[0]][1]
        )

    @property
    def storage(self) -> tuple[Fault, int | None]:
        """What the storage does, and how often."""
        return STORAGE[self.kind.removeprefix("storage ")]

    @property
    def moment(self) -> str:
        """When, for people."""
        if self.is_timed:
            return f"{self.seconds:.2f} s after {self.shards} shards"
        return f"at {self.file} write {self.skip + 1}".replace("  ", " ")

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
    if kind in _TIMED:
        after = rnd.randrange(-shards, shards)  # half of them before anything is committed
        return Kill(kind, shards=max(0, after), seconds=rnd.uniform(0, start_seconds if after <= 0 else 0.2))
    file = kind.split()[0]
    if file == "storage":
        file = rnd.choice(["plan", "record", "data", "data", "manifest", "manifest"])
        return Kill(kind, skip=rnd.randrange(FILES[file][2] or shards), file=file)
    return Kill(kind, skip=rnd.randrange(FILES[file][2] or shards))
