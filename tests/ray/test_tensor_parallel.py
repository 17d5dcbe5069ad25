"""Any rank of tensor parallelism dies or fails in a run: the actor dies, and every row is there once."""

import json

import pytest

from flexray.config import parse_config
from flexray.errors import ConfigError
from flexray.runs.run import run
from tests.ray.jobs import assert_whole, make_config, make_tree, manifests, question, rows_of, write


@pytest.fixture(scope="module")
def split_model(save_tiny_model, tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), heads=4, kv_heads=2)


@pytest.mark.slow
def test_a_run_outlives_each_of_its_ranks_and_no_row_is_lost_or_doubled(inject, split_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(6)])
    ledger = {"point": "engine.rank", "action": "kill", "ledger": str(tmp_path / "ledger")}
    # rank 1 dies in the first call, while rank 0 waits for its sums; rank 0 in the one after; later rank 1
    # lacks memory, and rank 0 waits again. Each at another row: one that crashes twice alone is given up
    inject(
        {**ledger, "match": {"rank": "1"}},
        {**ledger, "match": {"rank": "0"}, "skip": 1},
        {**ledger, "match": {"rank": "1"}, "skip": 3, "action": "raise:torch.OutOfMemoryError"},
    )
    tree = make_tree(tmp_path / "out", split_model, data, engine={"tensor_parallel": 2})
    tree["model"]["quantization"] = "fp8"
    run(parse_config(tree, source="test"), log=lambda _: None)
    for fault, reached in enumerate((1, 2, 4)):
        assert len(list((tmp_path / "ledger").glob(f"{fault}-*"))) > reached  # and it was tried again
    assert_whole(tmp_path / "out", 6)
    rows = rows_of(tmp_path / "out").values()
    assert not [row["error"] for row in rows if row["error"]]
    found = [json.loads(file.read_text())["engine_stats"] for file in manifests(tmp_path / "out").values()]
    assert {stats["rounding"]["tensor_parallel"] for stats in found} == {2}


def test_ranks_that_do_not_divide_the_model_are_refused_before_ray(split_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(0)])
    split = make_config(tmp_path / "out", split_model, data, engine={"tensor_parallel": 3})
    with pytest.raises(ConfigError, match="1, 2"):
        run(split, log=lambda _: None)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
