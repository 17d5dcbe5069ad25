"""The actors of the stream."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from flexray.config import RunConfig
from flexray.console.log import RunLabel
from flexray.pipeline.actors import Pace
from flexray.pipeline.crash_tracker import Attempt, Piece
from flexray.pipeline.failure import Failure, or_failure
from flexray.pipeline.job_tracker import Engine
from flexray.pipeline.shards import AnsweredShard, PreparedShard
from flexray.pipeline.telemetry import ActorTelemetry

if TYPE_CHECKING:
    from flexray.pipeline.answer import Answerer

TELL_SECONDS = 5.0


class AnswerStage:
    """An actor. Its engine has a thread of its own: while that answers some shards, the next ones are
    unpacked and the last ones packed beside it. What it is at is noted in the ledger. An engine that cannot
    be made is a failure in the place of the shards: an actor whose constructor fails is started again."""

    def __init__(self, config: RunConfig, tracker: Any, label: RunLabel):
        self._watch = ActorTelemetry(label, [method.name for method in config.methods])
        self._tracker = tracker
        self._begun: list[str] = []
        self._pace = Pace(config)
        self._phase = Engine()
        self._tokens_before = 0
        from flexray.pipeline.answer import Answerer  # torch: only actors need it

        # torch's number of threads, grad mode and compiled graphs belong to the thread that made them
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._answerer = Answerer(config, self._loading)
        self._name = ray.get_runtime_context().get_actor_id()
        threading.Thread(target=self._tell, name="tell", daemon=True).start()

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, list[bytes]]]:
        """Each shard of a batch, answered, in their order; of one with failures those alone, as they end the
        run. What Ray repeats comes in the same order."""
        given: list[PreparedShard | Failure] = [pickle.loads(shard) for shard in batch["shard"]]
        if failures := [shard for shard in given if isinstance(shard, Failure)]:
            yield _packed(failures)
            return
        left = [shard for shard in given if not isinstance(shard, Failure)]
        while left:
            now, left = left[: self._pace.shards], left[self._pace.shards :]
            answered = or_failure(self._thread.submit(self._answer, self._answerer, now).result)
            if isinstance(answered, Failure):
                yield _packed([answered])
                return
            for shard in answered:
                yield _packed([shard])

    def _answer(self, answerer: Answerer, shards: list[PreparedShard]) -> list[AnsweredShard]:
        """In the engine's thread."""
        asked = [self._tracker.attempt.remote(s.spec.shard_id, len(s.questions)) for s in shards]
        attempts: list[Attempt] = ray.get(asked)
        questions = sum(len(shard.questions) for shard in shards)
        self._tokens_before = answerer.tokens
        self._phase = Engine("answering", len(shards), questions)
        start = time.monotonic()
        with self._watch.batch(shards, attempts) as answered:
            answered += answerer.answer_together(list(zip(shards, attempts, strict=True)), self._note)
        self._pace.took(len(shards), time.monotonic() - start)
        self._phase = Engine()
        return answered

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        """While the model is loaded, for the first prompt."""
        phase = self._phase
        self._phase = dataclasses.replace(phase, phase="loading")
        yield
        self._phase = phase
        self._watch.ready()

    def _note(self, pieces: Mapping[str, Piece]) -> None:
        """In the ledger, before a call of the engine; {}: it is over."""
        if self._begun:
            ray.get(self._tracker.end.remote(self._begun))
        self._begun = list(pieces)
        if pieces:
            ray.get(self._tracker.begin.remote(dict(pieces)))

    def _tell(self) -> None:
        """Say in the ledger what the engine is at, as long as this process lives."""
        while True:
            tokens = self._answerer.tokens - self._tokens_before
            self._tracker.tell.remote(self._name, dataclasses.replace(self._phase, tokens=tokens))
            time.sleep(TELL_SECONDS)


def _packed(shards: Sequence[AnsweredShard | Failure]) -> dict[str, list[bytes]]:
    return {"shard": [pickle.dumps(shard) for shard in shards]}
