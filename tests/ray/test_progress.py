"""What is committed is said when it is; on one CPU a run has room for all that it does."""

import pytest

from flexray.pipeline import ray_data
from flexray.runs.run import run
from tests.ray.jobs import (
    assert_whole,
    flexray_run,
    make_config,
    make_tree,
    manifests,
    question,
    write,
    write_config,
)

ROWS = 6
SHARDS = 3  # of one row each


def test_a_shard_is_told_of_before_the_next_one_is_committed(inject, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_data, "INPUT_BLOCKS", SHARDS - 1)  # though some come out of one block
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(SHARDS)])
    inject({"point": "pipeline.answer", "action": "sleep:1.5", "times": None})
    lines = []

    def log(line):
        lines.append((line, len(manifests(tmp_path / "out"))))

    run(make_config(tmp_path / "out", tiny_model, data, data={"shard_rows": 1}), log=log)
    begun = [line.partition(":")[0].partition(",")[0] for line, _ in lines]
    assert begun.index("reading the data set qa/test") < begun.index("starting 1 engine")
    told = [committed for line, committed in lines if line.startswith("  qa-")]
    assert told == list(range(1, SHARDS + 1))


@pytest.mark.slow
def test_a_machine_of_one_cpu_is_enough(tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    tree = make_tree(tmp_path / "out", tiny_model, data, ray={"num_cpus": 1, "min_actors": 2})
    done = flexray_run(write_config(tmp_path, tree))
    assert done.returncode == 0, done.stderr
    assert "ray.min_actors is 2, but there is room only for 1 with 1 CPU each: 1 will answer" in done.stdout
    assert_whole(tmp_path / "out", ROWS)
