"""A pool begins with the actors that it must have and grows to those that it may have while there is work."""

import json

import pytest

from flexray.runs.run import run
from tests.ray.jobs import assert_whole, make_config, manifests, question, write

ROWS = 32


@pytest.mark.slow
def test_a_pool_grows_while_there_is_work_and_each_actor_has_some(inject, tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    inject({"point": "pipeline.answer", "action": "sleep:0.5", "times": None})
    actors = {"min_actors": 1, "max_actors": 2, "num_cpus_per_actor": 0.25}
    config = make_config(tmp_path / "out", tiny_model, data, data={"shard_rows": 1}, ray=actors)
    run(config, log=lambda _: None)
    assert_whole(tmp_path / "out", ROWS)
    found = [json.loads(file.read_text())["engine_stats"] for file in manifests(tmp_path / "out").values()]
    assert len({stats["process"] for stats in found}) == 2
