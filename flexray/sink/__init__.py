"""Exactly-once output on any fsspec file system. Readers see only rows that a shard manifest names.

OUT/_run.json                            the run record: which table of rows x methods the folder holds
OUT/plan/<n>.parquet                     the questions of a part of it; each row group is a shard
OUT/data/<shard_id>-<uuid>.parquet       rows
OUT/_manifests/<shard_id>.json           the commit of a shard, written last
OUT/_manifests/compact-<sha256>.jsonl    many manifests merged into one file
OUT/_quarantine/<time>-<random>/         files that a repair has moved aside
OUT/_lock-<n>.json                       the process that is working in the folder; removed at its end
"""

from flexray.sink.commit import commit_shard, recommit_shard
from flexray.sink.committed import committed_shards, whole_shards
from flexray.sink.compaction import compact
from flexray.sink.damage import DamageError
from flexray.sink.folder import OutputFolder
from flexray.sink.lock import HeldError, Lock, hold
from flexray.sink.other_run import other_parts
from flexray.sink.plan import checked_specs, specs_of
from flexray.sink.records import AnyRecord, CodeVersion, Manifest, RunRecord, ShardStats, fingerprint
from flexray.sink.repair import repair
from flexray.sink.start import NoRunError, discard_run, load_run, open_run, plan_run, record_evaluation
from flexray.sink.verify import verify
from flexray.sink.visible import read_committed

__all__ = [
    "AnyRecord",
    "CodeVersion",
    "DamageError",
    "HeldError",
    "Lock",
    "Manifest",
    "NoRunError",
    "OutputFolder",
    "RunRecord",
    "ShardStats",
    "checked_specs",
    "commit_shard",
    "committed_shards",
    "compact",
    "discard_run",
    "fingerprint",
    "hold",
    "load_run",
    "open_run",
    "other_parts",
    "plan_run",
    "read_committed",
    "recommit_shard",
    "record_evaluation",
    "repair",
    "specs_of",
    "verify",
    "whole_shards",
]
