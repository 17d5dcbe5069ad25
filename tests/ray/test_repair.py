"""A finished run is damaged, repaired and started again: only what was damaged is computed."""

import json

from flexray.config import parse_config
from flexray.runs.run import run
from flexray.sink import OutputFolder, repair, verify
from tests.ray.jobs import assert_whole, contents, manifests, rows_of

ROWS = 7


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_damaged_shards_plan_and_record_are_repaired_and_computed_again(again, output):
    rows, before = rows_of(output), contents(output)
    damaged = manifests(output)
    flip(output / json.loads(damaged["qa-test-000000"].read_text())["file"])
    flip(damaged["qa-test-000001"])
    flip(output / "plan" / "0000.parquet")
    flip(output / "_run.json")
    folder = OutputFolder(str(output))
    assert verify(folder).damaged == 3  # without the record there is no plan to judge
    repair(folder, log=lambda _: None)
    result = run(parse_config(again, source="test"), log=lambda _: None)
    assert (result.rows_before, result.rows_now) == (1, 6)
    assert_whole(output, ROWS)
    places = {"source_file": "", "shard_id": ""}  # what is computed again is in new shards
    found = rows_of(output)
    assert {i: row | places for i, row in found.items()} == {i: row | places for i, row in rows.items()}
    after = contents(output)
    whole = [damaged["qa-test-000002"], output / json.loads(before[damaged["qa-test-000002"]])["file"]]
    assert {p: after[p] for p in whole} == {p: before[p] for p in whole}
    assert repair(folder, log=lambda _: None).moved == ()
