"""The stream itself. One Ray row is one shard, so no block boundary can ever cut a shard."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flexray.config import RunConfig
from flexray.logs import RunLabel, start_logging
from flexray.pipeline.actors import actor_arguments, let_pools_grow, settle_actors, shards_a_call
from flexray.pipeline.deaths import Attempt, DeathLedger, Piece
from flexray.pipeline.failure import Failure, or_failure
from flexray.pipeline.prepare import prepare_shard
from flexray.pipeline.shards import AnsweredShard, PreparedShard
from flexray.pipeline.watch import ActorWatch, WatchedCommit
from flexray.types import ShardSpec

if TYPE_CHECKING:
    from flexray.pipeline.answer import Answerer

COMPILE_SECONDS = 1800
"""How long Ray waits for a sign of life: the first shard compiles kernels."""


def answer_shards(
    shards: Sequence[ShardSpec],
    config: RunConfig,
    commit: Callable[[AnsweredShard], dict[str, Any]],
    only: Callable[[ShardSpec], frozenset[str]] | None = None,
    label: RunLabel | None = None,
) -> Iterator[dict[str, Any]]:
    """Read, answer and commit shards, all at once as a stream; yields what `commit` returns for each,
    in the order in which they are done.

    Args:
        commit: called in a worker process with each answered shard; picklable. Ray repeats work whose
            process died, so it may see a shard again and must then have the same effect once.
        only: called in a worker process, names the row ids of a shard that are to be answered; picklable.
            None: all.
        label: what metrics and log call the run. None: by the data set alone.

    Raises:
        UserError, OSError: what a worker came upon.
    """
    label = label or RunLabel(dataset=config.data.name)
    watched = WatchedCommit(commit, label, [method.name for method in config.methods])
    settings = ray.data.DataContext.get_current()
    settings.execution_options.preserve_order = False
    settings.execution_no_progress_timeout_s = COMPILE_SECONDS
    settings.enable_progress_bars = False
    settings.print_on_execution_start = False

    let_pools_grow(settings)

    resources = ray.cluster_resources()
    config = settle_actors(config, resources, len(shards))
    ledger = _start_ledger()

    def prepare(row: dict[str, bytes]) -> dict[str, bytes]:
        start_logging(label.log)
        spec = _unpack(row)
        return _pack(or_failure(lambda: prepare_shard(spec, config, only(spec) if only else None)))

    def commit_one(row: dict[str, bytes]) -> dict[str, bytes]:
        shard = _unpack(row)
        return row if isinstance(shard, Failure) else _pack(or_failure(lambda: watched(shard)))

    stream = (
        ray.data.from_items([_pack(s) for s in shards], override_num_blocks=len(shards))
        .map(prepare, num_cpus=0.75)  # on two cores: one of these, one commit, one actor
        .map_batches(
            _AnswerStage,
            fn_constructor_args=(config, ledger, label),
            batch_size=shards_a_call(shards, config),
            **actor_arguments(config, resources),
        )
        .map(commit_one, num_cpus=0.25)
    )
    try:
        for row in stream.iter_rows():
            told = _unpack(row)
            if isinstance(told, Failure):
                raise told.error
            yield told
    finally:
        if ray.is_initialized():
            ray.kill(ledger)  # a night has many runs in one process


class _AnswerStage:
    """An actor. Its engine has a thread of its own: while that answers one batch of shards, the next one is
    unpacked and the last one packed beside it. What it is at is noted in the ledger. An engine that cannot be
    made is the failure of each batch: an actor whose constructor fails is started again."""

    def __init__(self, config: RunConfig, ledger: Any, label: RunLabel):
        self._watch = ActorWatch(label, [method.name for method in config.methods])
        self._ledger = ledger
        self._begun: list[str] = []
        from flexray.pipeline.answer import Answerer  # torch: only actors need it

        # torch's number of threads, grad mode and compiled graphs belong to the thread that made them
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._answerer = self._thread.submit(or_failure, lambda: Answerer(config)).result()
        if not isinstance(self._answerer, Failure):
            self._watch.ready()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        given: list[PreparedShard | Failure] = [pickle.loads(shard) for shard in batch["shard"]]
        return {"shard": [_pack(shard)["shard"] for shard in self._answered(given)]}

    def _answered(self, given: list[PreparedShard | Failure]) -> Sequence[AnsweredShard | Failure]:
        """The shards of a batch, answered; of one with failures those alone, as they end the run."""
        answerer = self._answerer
        if isinstance(answerer, Failure):
            return [answerer]
        shards = [shard for shard in given if not isinstance(shard, Failure)]
        if len(shards) < len(given):
            return [shard for shard in given if isinstance(shard, Failure)]
        answered = or_failure(self._thread.submit(self._answer, answerer, shards).result)
        return [answered] if isinstance(answered, Failure) else answered

    def _answer(self, answerer: Answerer, shards: list[PreparedShard]) -> list[AnsweredShard]:
        """In the engine's thread."""
        asked = [self._ledger.attempt.remote(s.spec.shard_id, len(s.questions)) for s in shards]
        attempts: list[Attempt] = ray.get(asked)
        with self._watch.batch(shards, attempts) as answered:
            answered += answerer.answer_together(list(zip(shards, attempts, strict=True)), self._note)
        return answered

    def _note(self, pieces: Mapping[str, Piece]) -> None:
        """In the ledger, before a call of the engine; {}: it is over."""
        if self._begun:
            ray.get(self._ledger.end.remote(self._begun))
        self._begun = list(pieces)
        if pieces:
            ray.get(self._ledger.begin.remote(dict(pieces)))


def _start_ledger() -> Any:
    """On this node, as the driver: it should outlive the actors that it tells of. If it dies all the same, a
    new one knows of no deaths, and the run goes on."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    lives = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(DeathLedger).options(num_cpus=0, scheduling_strategy=here, **lives).remote()


# A shard, and what becomes of it, travels as one pickled value, through Ray's object store only, which
# pickles as well; as columns it would be cut and converted on the way.
def _pack(shard: Any) -> dict[str, bytes]:
    return {"shard": pickle.dumps(shard)}


def _unpack(row: dict[str, bytes]) -> Any:
    return pickle.loads(row["shard"])
