"""Processes that race for a folder's lock."""

import multiprocessing
import os
import time

from flexray.sink import OutputFolder, hold
from flexray.sink.lock.hold import HeldError

RACERS = 8
QUICK = {"beat_seconds": 0.2, "expiry_seconds": 3.0}
SECONDS = 120  # more than the slowest needs


def race(url, environment, together, results):
    """One racer: waits for the others, and holds the lock until all have tried, and some beats longer."""
    os.environ.update(environment)
    folder = OutputFolder(url)
    together.wait(SECONDS)
    try:
        with hold(folder, log=lambda _: None, **QUICK) as lock:
            results.put("held")
            together.wait(SECONDS)
            time.sleep(4 * QUICK["beat_seconds"])
            lock.check()
            results.put("still held")
    except HeldError:
        results.put("refused")
        together.wait(SECONDS)


def race_all(folder):
    """What all racers said, sorted."""
    # Forked from a process that has the imports: each by itself, they would take longer than the race.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flexray.sink", "s3fs"])
    together, results = context.Barrier(RACERS), context.Queue()
    arguments = (folder.url, dict(os.environ), together, results)
    racers = [context.Process(target=race, args=arguments) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    said = [results.get(timeout=SECONDS) for _ in range(RACERS + 1)]
    for racer in racers:
        racer.join()
    return sorted(said)
