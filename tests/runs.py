"""Runs without Ray: the stages of a job, called one after the other in this process."""

from collections.abc import Sequence

from flexray.config import RunConfig
from flexray.pipeline.answer import Answerer
from flexray.pipeline.prepare import prepare_shard
from flexray.runs.commit import Commit
from flexray.runs.job import plan_job
from flexray.sink import Manifest, OutputFolder, committed_shards


def run_shards(config: RunConfig, which: Sequence[int]) -> list[Manifest]:
    """Start a run, or go on with it: answer and commit some shards; the manifests that are there then."""
    folder = OutputFolder(config.output)
    job = plan_job(config, folder)
    record = job.start(folder)
    answerer = Answerer(job.config)
    commit = Commit(folder.url, record.fingerprint, record.methods)
    for i in which:
        commit(answerer.answer(prepare_shard(job.found.shards[i], job.config)))
    return list(committed_shards(folder, record.fingerprint).values())
