"""A large data set is planned by Ray: the same plan, bit for bit, also if a worker dies."""

import pytest

from flexray.errors import DataError
from flexray.pipeline.ray_map import RayMap
from flexray.runs.run import run
from flexray.sink import OutputFolder, staging
from flexray.sink.scratch import FolderScratch
from tests.ray.jobs import assert_whole, make_config, question, rows_of, write

ROWS = 30


@pytest.fixture
def large(monkeypatch):
    """Any data set is large; each file of it is read by a task of its own."""
    monkeypatch.setattr(staging, "IN_PROCESS_BYTES", 0)
    monkeypatch.setattr(staging, "UNIT_BYTES", 1)
    monkeypatch.setattr(staging, "BUCKET_BYTES", 1000)


def plan_files(folder):
    return {path.name: path.read_bytes() for path in (folder / "plan").iterdir()}


def test_a_run_planned_by_ray_has_the_plan_of_one_process(inject, tiny_model, tmp_path, monkeypatch, large):
    for number in range(5):
        rows = [question(i) for i in range(number, ROWS, 5)]
        write(tmp_path / f"{number}.jsonl", [*rows, question(7), "no object"])
    files = sorted(tmp_path.glob("*.jsonl"))
    with monkeypatch.context() as patch:
        patch.setattr(RayMap, "__call__", lambda self, function, items: map(function, items))
        run(make_config(tmp_path / "alone", tiny_model, *files), log=lambda _: None)
    inject({"point": "plan.scratch", "action": "kill", "skip": 2, "ledger": str(tmp_path / "ledger")})
    monkeypatch.setattr(FolderScratch, "get", lambda *_: pytest.fail("the driver reads no rows"))
    run(make_config(tmp_path / "many", tiny_model, *files), log=lambda _: None)
    assert (tmp_path / "ledger").exists()
    assert plan_files(tmp_path / "many") == plan_files(tmp_path / "alone")
    assert_whole(tmp_path / "many", ROWS + 10)
    assert not (tmp_path / "many" / "_scratch").exists()
    errors = [row["error"] for row in rows_of(tmp_path / "many").values() if row["error"]]
    assert sum("has the same id as" in error for error in errors) == 5
    assert sum("has the same content as" in error for error in errors) == 4


def test_a_fault_of_the_data_that_a_worker_finds_is_told_plainly(local_ray, tmp_path, tiny_model, large):
    good = write(tmp_path / "a.jsonl", [question(1)])
    bad = write(tmp_path / "b.jsonl", [{"id": "x"}])
    with pytest.raises(DataError, match=r"b\.jsonl: no record has the field 'question'") as told:
        run(make_config(tmp_path / "out", tiny_model, good, bad), log=lambda _: None)
    assert "Traceback" not in str(told.value)
    assert OutputFolder(str(tmp_path / "out")).list() == []
