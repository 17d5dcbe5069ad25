"""The names of the files in an output folder."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

RUN_FILE = "_run.json"
PLAN_FOLDER = "plan"
OLD_PLAN_FILE = "_plan.parquet"
DATA_FOLDER = "data"
MANIFEST_FOLDER = "_manifests"
QUARANTINE_FOLDER = "_quarantine"
SCRATCH_FOLDER = "_scratch"
OLD_NIGHT = r"[0-9a-f]{16}"
"""The name of a folder in which a night of flexray 0.1 put the run of one file, below a recipe's output."""
OWN_NAMES = (
    RUN_FILE,
    PLAN_FOLDER,
    OLD_PLAN_FILE,
    DATA_FOLDER,
    MANIFEST_FOLDER,
    QUARANTINE_FOLDER,
    SCRATCH_FOLDER,
)  # and lock files

SHARD_ID = r"[A-Za-z0-9_][A-Za-z0-9._-]*"  # a shard id is part of file names
_DATA_FILE = re.compile(rf"({SHARD_ID})-[0-9a-f]{{32}}\.parquet")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ShardId = Annotated[str, Field(pattern=rf"^{SHARD_ID}$")]


def manifest_name(shard_id: str) -> str:
    """The name of a shard's single manifest; `compact` may later move its record into a compact file."""
    return f"{MANIFEST_FOLDER}/{shard_id}.json"


def shard_of_data_file(name: str) -> str | None:
    """The shard that a data file was written for, from its name without the folder; None for other files."""
    match = _DATA_FILE.fullmatch(name)
    return match and match[1]
