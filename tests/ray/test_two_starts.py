"""Two starts of a run at once: one does all the work, the other says who is at it."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from flexray.runs.run import run
from flexray.sink import HeldError
from tests.ray.jobs import (
    assert_whole,
    flexray_command,
    make_config,
    make_tree,
    question,
    rows_of,
    write,
    write_config,
)

ROWS = 6


def test_of_two_starts_in_one_process_one_answers_and_the_other_is_refused(inject, tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    config = make_config(tmp_path / "out", tiny_model, data)
    # longer than until the next heartbeat, by which the second start sees that the first one is alive
    inject({"point": "pipeline.answer", "action": "sleep:6", "times": 1, "ledger": str(tmp_path / "ledger")})

    def start(_):
        try:
            return run(config, log=lambda line: None)
        except HeldError as e:
            return e

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(start, range(2)))
    (refused,) = [result for result in results if isinstance(result, HeldError)]
    (done,) = [result for result in results if not isinstance(result, HeldError)]
    assert done.rows_now == ROWS
    assert f"{tmp_path / 'out'}: another run is at work there: host " in str(refused)
    assert f", process {os.getpid()} of user " in str(refused)
    assert_whole(tmp_path / "out", ROWS)
    assert len(list((tmp_path / "out" / "data").iterdir())) == 2  # no shard was computed twice
    assert not list((tmp_path / "out").glob("_lock*"))


@pytest.mark.slow
def test_of_two_runs_started_at_once_one_finishes_and_the_other_names_it(local_ray, tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    config = write_config(tmp_path, make_tree(tmp_path / "out", tiny_model, data, ray={"address": local_ray}))
    starts = [
        subprocess.Popen(
            flexray_command(config),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(2)
    ]
    outcomes = []
    try:
        for start in starts:
            said, errors = start.communicate(timeout=300)
            outcomes.append((start.returncode, said, errors))
    finally:
        for start in starts:
            start.kill()
    (finished, said, _), (refused, _, message) = sorted(outcomes)
    assert (finished, refused) == (0, 2)
    assert f"[{ROWS}/{ROWS} rows" in said
    (holder,) = [start.pid for start in starts if start.returncode == 0]
    assert f"error: {tmp_path / 'out'}: another run is at work there: host " in message
    assert f", process {holder} of user " in message
    assert f"run --config {config}" in message
    assert "Traceback" not in message
    assert_whole(tmp_path / "out", ROWS)
    assert len(rows_of(tmp_path / "out")) == ROWS
    assert len(list((tmp_path / "out" / "data").iterdir())) == 2  # no shard was computed twice
    assert not list((tmp_path / "out").glob("_lock*"))
