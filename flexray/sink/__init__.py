"""Exactly-once output on any fsspec file system. Readers see only rows that a shard manifest names.

OUT/_run.json                            the run record: which table of rows x methods the folder holds
OUT/plan/<n>.parquet                     the questions of a part of it; each row group is a shard
OUT/data/<shard_id>-<uuid>.parquet       rows
OUT/_manifests/<shard_id>.json           the commit of a shard, written last
OUT/_manifests/compact-<sha256>.jsonl    many manifests merged into one file
OUT/_scratch/                            what a start keeps while it plans a large table
OUT/_quarantine/<time>-<random>/         files that a repair has moved aside
OUT/_lock-<n>.json                       the process that is working in the folder; removed at its end

folder.py   whole files in a folder or at a URL          commit/   data file and manifest of a shard
records/    names, JSON records and rows in those files   read/     what is committed, and what is seen of it
plan/       which rows are computed by which methods     verify/   read everything back
run/        start, go on, make the record again          repair/   move aside what cannot stay
lock/       one run at a time
"""

from flexray.sink.commit.compaction import compact
from flexray.sink.commit.shard import commit_shard, recommit_shard
from flexray.sink.folder import OutputFolder
from flexray.sink.lock.hold import HeldError, Lock, hold
from flexray.sink.plan.scratch import clear_scratch
from flexray.sink.plan.shards import checked_specs, specs_of
from flexray.sink.read.committed import committed_shards, whole_shards
from flexray.sink.read.visible import read_committed
from flexray.sink.records import AnyRecord, CodeVersion, Manifest, RunRecord, ShardStats, fingerprint
from flexray.sink.records.damage import DamageError
from flexray.sink.repair.repair import repair
from flexray.sink.run.existing import NoRunError, discard_run, load_run
from flexray.sink.run.other_run import other_parts
from flexray.sink.run.start import open_run, plan_run, record_evaluation
from flexray.sink.verify.verify import verify

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
    "clear_scratch",
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
