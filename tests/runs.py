"""Runs without Ray: the stages of a job, called one after the other in this process."""

from collections.abc import Sequence

from flexray.config import RunConfig
from flexray.pipeline.answer import Answerer
from flexray.pipeline.prepare import prepare_shard
from flexray.runs.commit import Commit
from flexray.runs.job import Planned, check_job, plan
from flexray.runs.run import by_methods
from flexray.sink import Manifest, OutputFolder, committed_shards, specs_of
from flexray.sink.plan.site import Mapper


def planned(config: RunConfig, distribute: Mapper | None = None) -> Planned:
    """What a start of this run plans in its folder."""
    folder = OutputFolder(config.output)
    return plan(check_job(config, folder), folder, distribute=distribute)


def run_shards(config: RunConfig, which: Sequence[int]) -> list[Manifest]:
    """Start a run, or go on with it: answer and commit some shards; the manifests that are there then."""
    folder = OutputFolder(config.output)
    job = planned(config)
    specs = list(specs_of(folder, job.record).values())
    commit = Commit(folder.url, job.record.fingerprint)
    answerers: dict[tuple[str, ...], tuple[RunConfig, Answerer]] = {}
    for spec in (specs[i] for i in which):
        if spec.methods not in answerers:
            narrowed = by_methods(job.config, spec.methods)
            answerers[spec.methods] = narrowed, Answerer(narrowed)
        narrowed, answerer = answerers[spec.methods]
        commit(answerer.answer(prepare_shard(spec, narrowed)))
    return list(committed_shards(folder, job.record).values())
