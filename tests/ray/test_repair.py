"""A finished run is damaged, repaired and started again: only what was damaged is computed."""

import json

import pytest

from flexray.config import parse_config
from flexray.run import run
from flexray.sink import OutputFolder, repair, verify
from tests.ray.jobs import assert_whole, make_tree, manifests, question, rows_of, write

ROWS = 7


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.fixture
def tree(local_ray, tiny_model, tmp_path):
    """The configuration of a finished run of three shards."""
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    tree = make_tree(tmp_path / "out", tiny_model, data)
    run(parse_config(tree, source="test"), say=lambda _: None)
    return tree


def test_damaged_shards_plan_and_record_are_repaired_and_computed_again(tree, tmp_path):
    output = tmp_path / "out"
    rows = rows_of(output)
    damaged = manifests(output)
    flip(output / json.loads(damaged["qa-test-000000"].read_text())["file"])
    flip(damaged["qa-test-000001"])
    flip(output / "_plan.parquet")
    flip(output / "_run.json")
    folder = OutputFolder(str(output))
    assert verify(folder).damaged == 3  # without the record there is no plan to judge
    repair(folder, say=lambda _: None)
    result = run(parse_config(tree, source="test"), say=lambda _: None)
    assert (result.rows_before, result.rows_now) == (1, 6)
    assert_whole(output, ROWS)
    assert rows_of(output) == rows
    assert repair(folder, say=lambda _: None).moved == ()
