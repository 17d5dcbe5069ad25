"""The Ray actor that answers shards with one engine, which runs in its own thread."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from flexray.config import RunConfig
from flexray.console.log import RunLabel
from flexray.engine.garbage import freeze
from flexray.pipeline.actors import Pace
from flexray.pipeline.columns import ANSWERED_SCHEMA, answered_row, failure_row, read_prepared
from flexray.pipeline.crash_tracker import Attempt, RowRange
from flexray.pipeline.failures import Failure, or_failure
from flexray.pipeline.job_tracker import EngineStatus
from flexray.pipeline.shards import AnsweredShard, PreparedShard
from flexray.pipeline.telemetry import ActorTelemetry

if TYPE_CHECKING:
    from flexray.pipeline.answer import Answerer, GeneratedShard

REPORT_SECONDS = 5.0
SWITCH_SECONDS = 0.0005
"""How long a thread keeps the interpreter while another waits for it. The engine's thread gives it away with
each operation of torch; it would get it back after 5 ms only, Python's default, whenever columns are read or
texts written beside it, and the GPU would run out of work."""


class AnswerActor:
    """While the engine's thread generates the tokens of some shards, the next ones are read from their
    columns, and the texts of the previous ones decoded and written. The actor reports to the job tracker what
    the engine is doing. If the engine cannot be made, the actor returns a failure instead of shards, because
    Ray would restart an actor whose constructor fails."""

    def __init__(self, config: RunConfig, tracker: Any, label: RunLabel):
        sys.setswitchinterval(SWITCH_SECONDS)
        self._telemetry = ActorTelemetry(label, [method.name for method in config.methods])
        self._tracker = tracker
        self._open: list[str] = []
        self._pace = Pace(config)
        self._status = EngineStatus()
        self._tokens_before = 0

        # torch keeps its number of threads, grad mode and compiled graphs per thread
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._answerer = self._make_answerer(config)
        self._engine_id = ray.get_runtime_context().get_actor_id()
        threading.Thread(target=self._report, name="report", daemon=True).start()

    def _make_answerer(self, config: RunConfig) -> Answerer:
        """What holds the engine. A subclass may have another engine."""
        from flexray.pipeline.answer import Answerer  # torch: only actors need it

        return Answerer(config, self._loading)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """The answered shards of a batch, in order, also if Ray repeats the batch. If the batch contains
        failures, only one is returned, as it ends the run."""
        left: list[PreparedShard] = []
        for given in read_prepared(batch):
            if isinstance(given, Failure):
                yield failure_row(given, ANSWERED_SCHEMA)
                return
            left.append(given)
        while left:
            now, left = left[: self._pace.shards], left[self._pace.shards :]
            answered = or_failure(lambda: self._answer(now))  # noqa: B023  called at once
            if isinstance(answered, Failure):
                yield failure_row(answered, ANSWERED_SCHEMA)
                return
            yield from map(answered_row, answered)

    def _answer(self, shards: list[PreparedShard]) -> list[AnsweredShard]:
        try:
            generated = self._thread.submit(self._generate, self._answerer, shards).result()
            answered = [self._answerer.finish(result) for result in generated]
        except Exception as e:
            self._telemetry.failed(e, shards)
            raise
        self._telemetry.answered(answered)
        return answered

    def _generate(self, answerer: Answerer, shards: list[PreparedShard]) -> list[GeneratedShard]:
        """Generate the tokens of shards; runs in the engine's thread."""
        pending = [self._tracker.attempt.remote(s.spec.shard_id, len(s.questions)) for s in shards]
        attempts: list[Attempt] = ray.get(pending)
        questions = sum(len(shard.questions) for shard in shards)
        self._tokens_before = answerer.tokens
        self._status = EngineStatus("answering", len(shards), questions)
        start = time.monotonic()
        with self._telemetry.batch(shards, attempts):
            generated = answerer.generate(list(zip(shards, attempts, strict=True)), self._note)
        self._pace.took(len(shards), time.monotonic() - start)
        self._status = EngineStatus()
        if answerer.is_loaded:
            freeze()
        return generated

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        """Report the phase "loading" while the model is loaded, which happens at the first prompt."""
        before = self._status
        self._status = dataclasses.replace(before, phase="loading")
        yield
        self._status = before
        self._telemetry.ready()

    def _note(self, ranges: Mapping[str, RowRange]) -> None:
        """Tell the tracker which rows the next engine call answers; {} means that the call has ended."""
        if self._open:
            ray.get(self._tracker.end.remote(self._open))
        self._open = list(ranges)
        if ranges:
            ray.get(self._tracker.begin.remote(dict(ranges)))

    def _report(self) -> None:
        """Tell the tracker what the engine is doing, every REPORT_SECONDS until this process ends."""
        while True:
            tokens = self._answerer.tokens - self._tokens_before
            self._tracker.report.remote(self._engine_id, dataclasses.replace(self._status, tokens=tokens))
            time.sleep(REPORT_SECONDS)
