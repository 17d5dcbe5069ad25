"""Call a function with each of many items, as tasks of Ray Data."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import ray
import ray.data

from flexray.config import RunConfig
from flexray.config.plugins import load_plugins
from flexray.console.log import RunLabel, start_logging
from flexray.console.signals import Stopped, ending_by
from flexray.pipeline.failures import Failure, or_failure
from flexray.pipeline.ray_connection import connect_ray
from flexray.pipeline.ray_data import adjust_ray_data

TASK_CPUS = 0.66
"""Of a task: three for two CPUs. Ray Data hands out the next task a fifth of a second after one has ended,
and meanwhile the third is at work."""
MAX_ITEMS = 8
"""That a task has, for the same reason; fewer, so that each CPU has TASKS_A_CPU tasks, if it can be."""
TASKS_A_CPU = 4
NOTE_SECONDS = 30.0
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class RayMap:
    """As the built-in `map`, in the workers of a cluster, which is connected or started at the first call.
    Functions, items and results are pickled, so they should be small: what is large stays in storage. Ray
    repeats the work of a process that died, so a function must be able to bear that."""

    config: RunConfig
    stopped: Callable[[Stopped], None]
    """Called at a signal, before this process ends."""
    check: Callable[[], None] = lambda: None
    """Called with each result; may raise."""
    note: Callable[[str], None] = lambda line: None
    """Called with a line about how far it is, every NOTE_SECONDS at most."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """The results in order of the items. Raises a UserError or an OSError that the function raises."""
        waiting = list(items)
        if not waiting:
            return
        with ending_by(self.stopped):
            connect_ray(self.config.ray, self.note)
            cpus = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        size = max(1, min(MAX_ITEMS, len(waiting) // (TASKS_A_CPU * cpus)))
        tasks = [
            pickle.dumps((function, waiting[start : start + size])) for start in range(0, len(waiting), size)
        ]
        for results in self._in_order(tasks):
            for result in results:
                if isinstance(result, Failure):
                    raise result.error()
                yield result

    def _in_order(self, tasks: list[bytes]) -> Iterator[list[R | Failure]]:
        """The results of tasks, which end in any order."""
        adjust_ray_data()
        plugins, log = self.config.plugins, RunLabel(dataset=self.config.data.name).log

        def call(batch: pa.Table) -> pa.Table:
            start_logging(log)
            load_plugins(plugins)
            (task,) = batch["task"].to_pylist()
            return pa.table(
                {
                    "number": batch["number"],
                    "results": pa.array([pickle.dumps(_results(task))], pa.large_binary()),
                }
            )

        rows = [{"number": number, "task": task} for number, task in enumerate(tasks)]
        stream = iter(
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map_batches(call, batch_size=1, batch_format="pyarrow", num_cpus=TASK_CPUS)
            .iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        )
        ended: dict[int, bytes] = {}
        last_note = time.monotonic()
        for number in range(len(tasks)):
            if time.monotonic() - last_note >= NOTE_SECONDS:
                self.note(f"planning: {number:,} of {len(tasks):,} tasks of this step are done")
                last_note = time.monotonic()
            while number not in ended:
                with ending_by(self.stopped):
                    batch: pa.Table = next(stream)
                self.check()
                ended |= {row["number"]: row["results"] for row in batch.to_pylist()}
            yield pickle.loads(ended.pop(number))


def _results(task: bytes) -> list[object]:
    """What a task's function returns for each item, up to the first failure."""
    function, items = pickle.loads(task)
    found: list[object] = []
    for item in items:
        found.append(or_failure(lambda item=item: function(item)))  # type: ignore[misc]
        if isinstance(found[-1], Failure):
            break
    return found
