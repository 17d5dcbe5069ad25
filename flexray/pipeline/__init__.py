"""The Ray Data stream: shard -> questions and prompts -> GPU actors -> commit. Only it and jobs/ use Ray."""

from flexray.pipeline.cluster import connect, disconnect
from flexray.pipeline.shards import AnsweredShard, PreparedShard
from flexray.pipeline.stream import answer_shards
from flexray.pipeline.telemetry import report_remaining

__all__ = ["AnsweredShard", "PreparedShard", "answer_shards", "connect", "disconnect", "report_remaining"]
