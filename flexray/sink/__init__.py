"""Exactly-once output: rows are visible through shard manifests only, on any fsspec file system.

OUT/_run.json                        what the folder is the output of
OUT/_plan.parquet                    each planned row: (shard_id, row_id)
OUT/data/<shard_id>-<uuid>.parquet   rows
OUT/_manifests/<shard_id>.json       the commit of a shard, written last
"""

from flexray.sink.commit import CommitError, commit_shard, committed_shards, read_committed
from flexray.sink.folder import OutputFolder
from flexray.sink.records import Accounting, DamageError, Manifest, RunRecord, fingerprint
from flexray.sink.report import Finding, VerifyReport
from flexray.sink.run import discard_run, load_run, start_run
from flexray.sink.scrub import scrub
from flexray.sink.verify import verify

__all__ = [
    "Accounting",
    "CommitError",
    "DamageError",
    "Finding",
    "Manifest",
    "OutputFolder",
    "RunRecord",
    "VerifyReport",
    "commit_shard",
    "committed_shards",
    "discard_run",
    "fingerprint",
    "load_run",
    "read_committed",
    "scrub",
    "start_run",
    "verify",
]
