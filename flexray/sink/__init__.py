"""Exactly-once output on any fsspec file system. Readers see only rows that a shard manifest names.

OUT/_run.json                            the run record: the run whose output the folder holds
OUT/_plan.parquet                        each planned row: (shard_id, row_id)
OUT/data/<shard_id>-<uuid>.parquet       rows
OUT/_manifests/<shard_id>.json           the commit of a shard, written last
OUT/_manifests/compact-<sha256>.jsonl    many manifests merged into one file
OUT/_quarantine/<time>-<random>/         files that a repair has moved aside
OUT/_lock-<n>.json                       the process that is working in the folder; removed at its end
"""

from flexray.sink.commit import commit_shard, recommit_shard
from flexray.sink.committed import committed_shards, read_committed, whole_shards
from flexray.sink.compaction import compact
from flexray.sink.damage import DamageError
from flexray.sink.folder import OutputFolder
from flexray.sink.lock import HeldError, Lock, hold
from flexray.sink.records import CodeVersion, Manifest, RunRecord, ShardStats, fingerprint
from flexray.sink.repair import repair
from flexray.sink.start import NoRunError, discard_run, load_run, other_parts, start_run
from flexray.sink.verify import verify

__all__ = [
    "CodeVersion",
    "DamageError",
    "HeldError",
    "Lock",
    "Manifest",
    "NoRunError",
    "OutputFolder",
    "RunRecord",
    "ShardStats",
    "commit_shard",
    "committed_shards",
    "compact",
    "discard_run",
    "fingerprint",
    "hold",
    "load_run",
    "other_parts",
    "read_committed",
    "recommit_shard",
    "repair",
    "start_run",
    "verify",
    "whole_shards",
]
