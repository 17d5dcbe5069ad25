"""The Ray Data stream: shard -> questions and prompts -> GPU actors -> commit. Only it and jobs/ use Ray."""

from flexray.pipeline.cluster import connect
from flexray.pipeline.shards import AnsweredShard, PreparedShard
from flexray.pipeline.stream import answer_shards
from flexray.pipeline.watch import report_remaining

__all__ = ["AnsweredShard", "PreparedShard", "answer_shards", "connect", "report_remaining"]
