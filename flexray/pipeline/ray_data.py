"""The Ray Data pipeline. One Ray row is one shard, so a block boundary can never split a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flexray.config import RunConfig
from flexray.console.log import RunLabel, start_logging
from flexray.data.question import ShardSpec
from flexray.pipeline.actors import (
    COMMIT_CPUS,
    PREPARE_CPUS,
    actor_arguments,
    let_pools_grow,
    settle_actors,
    shards_a_call,
)
from flexray.pipeline.answer_actor import AnswerActor
from flexray.pipeline.columns import (
    COMMITTED_SCHEMA,
    PREPARED_SCHEMA,
    committed_row,
    failure_row,
    prepared_row,
    read_answered,
    read_committed,
    read_specs,
    spec_row,
)
from flexray.pipeline.failures import Failure, or_failure
from flexray.pipeline.job_tracker import JobTracker, StatusPrinter
from flexray.pipeline.nodes import can_grow, find_nodes
from flexray.pipeline.prepare import prepare_shard
from flexray.pipeline.shards import AnsweredShard
from flexray.pipeline.telemetry import TelemetryCommit

COMPILE_SECONDS = 1800
"""How long Ray waits for progress; long, because kernels are compiled for the first shard."""

INPUT_BLOCKS = 4_096
"""At most. A block costs the driver about 1.5 ms and a task; of more shards, one task prepares several, one
after the other, and hands on each as soon as it is ready."""


def answer_shards(
    shards: Sequence[ShardSpec],
    config: RunConfig,
    commit: Callable[[AnsweredShard], dict[str, Any]],
    only: Callable[[ShardSpec], frozenset[str]] | None = None,
    label: RunLabel | None = None,
    note: Callable[[str], None] = lambda line: None,
    actor: type[AnswerActor] = AnswerActor,
) -> Iterator[dict[str, Any]]:
    """Read, answer and commit shards as a stream. Yields what `commit` returns for each shard, as soon as the
    shard is committed, in whatever order the shards finish.

    Args:
        commit: called in a worker process with each answered shard; must be picklable. It must be idempotent,
            because Ray repeats the work of a process that died and may pass the same shard again.
        only: called in a worker process with a shard; returns the row ids to answer. Must be picklable.
            None: all rows.
        label: names the run in metrics and log. None: only the data set's name.
        note: called with a line about what the run is waiting for, or what the engines are doing while no
            shard is committed.
        actor: answers the shards, in processes of its own.

    Raises:
        ConfigError: an engine needs more than any node of the cluster has.
        UserError, OSError: raised in a worker.
    """
    label = label or RunLabel(dataset=config.data.name)
    measured_commit = TelemetryCommit(commit, label, [method.name for method in config.methods])
    settled = settle_actors(config, find_nodes(), len(shards), grows=can_grow())
    if settled.note:
        note(settled.note)
    config = settled.config
    engines = f"{settled.first} engine{'s' * (settled.first != 1)}"
    note(f"starting {engines}: each loads {config.model.path}, and compiles kernels for its first rows")
    adjust_ray_data()
    tracker = _start_tracker()

    def prepare(batch: pa.Table) -> pa.Table:
        start_logging(label.log)
        (spec,) = read_specs(batch)
        return _row_or_failure(
            lambda: prepared_row(prepare_shard(spec, config, only(spec) if only else None)), PREPARED_SCHEMA
        )

    def commit_one(batch: pa.Table) -> pa.Table:
        (shard,) = read_answered(batch)
        if isinstance(shard, Failure):
            return failure_row(shard, COMMITTED_SCHEMA)
        return _row_or_failure(lambda: committed_row(measured_commit(shard)), COMMITTED_SCHEMA)

    blocks = min(len(shards), INPUT_BLOCKS)
    stream = (
        ray.data.from_items(list(map(spec_row, shards)), override_num_blocks=blocks)
        .map_batches(prepare, batch_size=1, batch_format="pyarrow", num_cpus=PREPARE_CPUS * settled.task_cpus)
        .map_batches(
            actor,
            fn_constructor_args=(config, tracker, label),
            batch_size=shards_a_call(shards, config),
            batch_format="pyarrow",
            **actor_arguments(settled),
        )
        .map_batches(
            commit_one, batch_size=1, batch_format="pyarrow", num_cpus=COMMIT_CPUS * settled.task_cpus
        )
    )
    status = StatusPrinter(tracker, config.ray.num_cpus_per_actor, config.ray.num_gpus_per_actor or 0.0, note)
    try:
        with status.running():
            # with the default prefetch of one batch, a shard would be reported only when the next one is done
            for batch in stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for result in read_committed(batch):
                    if isinstance(result, Failure):
                        raise result.error()
                    status.reset()
                    yield result
    finally:
        if ray.is_initialized():
            ray.kill(tracker)  # `flexray nightly` has many runs in one process


def _row_or_failure(call: Callable[[], pa.Table], schema: pa.Schema) -> pa.Table:
    result = or_failure(call)
    return failure_row(result, schema) if isinstance(result, Failure) else result


def adjust_ray_data() -> None:
    """Set what all pipelines of this package need."""
    settings = ray.data.DataContext.get_current()
    settings.execution_options.preserve_order = False
    settings.execution_no_progress_timeout_s = COMPILE_SECONDS
    settings.enable_progress_bars = False
    settings.print_on_execution_start = False
    # in bytes; makes each shard a separate block, which is passed on as soon as it is ready
    settings.target_max_block_size = 1
    let_pools_grow(settings)


def _start_tracker() -> Any:
    """Start the tracker on the driver's node, because it should outlive the actors that report to it. If it
    crashes nevertheless, Ray restarts it without its records, and the run goes on."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lives = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(JobTracker).options(num_cpus=0, scheduling_strategy=here, **lives).remote()
