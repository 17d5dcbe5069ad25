"""A large data set is planned by Ray: the same plan, bit for bit, also if a worker dies."""

import pyarrow as pa
import pytest

from flexray.errors import DataError
from flexray.pipeline import ray_map
from flexray.pipeline.ray_map import RayMap
from flexray.runs.run import run
from flexray.sink import OutputFolder
from flexray.sink.plan import staging
from flexray.sink.plan.files import read_part
from flexray.sink.plan.scratch import FolderScratch
from tests.ray.jobs import make_config, question, write
from tests.runs import planned

ROWS = 30


@pytest.fixture
def large(monkeypatch):
    """Any data set is large; each file of it is read by a task of its own."""
    monkeypatch.setattr(staging, "IN_PROCESS_BYTES", 0)
    monkeypatch.setattr(staging, "UNIT_BYTES", 1)
    monkeypatch.setattr(staging, "BUCKET_BYTES", 1000)


def test_ray_makes_the_plan_of_one_process_and_bears_the_death_of_a_worker(
    inject, tiny_model, tmp_path, monkeypatch, large
):
    for number in range(5):
        rows = [question(i) for i in range(number, ROWS, 5)]
        write(tmp_path / f"{number}.jsonl", [*rows, question(7), "no object"])
    files = sorted(tmp_path.glob("*.jsonl"))
    alone, many = (make_config(tmp_path / name, tiny_model, *files) for name in ("alone", "many"))
    expected = planned(alone, map).record
    inject({"point": "plan.scratch", "action": "kill", "skip": 2, "ledger": str(tmp_path / "ledger")})
    monkeypatch.setattr(FolderScratch, "get", lambda *_: pytest.fail("the driver reads no rows"))
    monkeypatch.setattr(ray_map, "NOTE_SECONDS", 0.0)
    notes = []
    record = planned(many, RayMap(config=many, stopped=pytest.fail, note=notes.append)).record
    assert any(note.startswith("planning: 1 of ") for note in notes)
    assert len(list((tmp_path / "ledger").iterdir())) > 3
    assert (record.plan, record.selection, record.next_shard) == (
        expected.plan,
        expected.selection,
        expected.next_shard,
    )
    assert record.planned_rows == ROWS + 10
    for part in record.plan:
        assert (tmp_path / "many" / part.file.file).read_bytes() == (
            tmp_path / "alone" / part.file.file
        ).read_bytes()
    rows = pa.concat_tables(read_part(OutputFolder(many.output), part) for part in record.plan)
    errors = [error for error in rows["error"].to_pylist() if error]
    assert sum("has the same id as" in error for error in errors) == 5
    assert sum("has the same content as" in error for error in errors) == 4
    assert not (tmp_path / "many" / "_scratch").exists()


def test_a_fault_of_the_data_that_a_worker_finds_is_told_plainly(local_ray, tmp_path, tiny_model, large):
    good = write(tmp_path / "a.jsonl", [question(1)])
    bad = write(tmp_path / "b.jsonl", [{"id": "x"}])
    with pytest.raises(DataError, match=r"b\.jsonl: no record has the field 'question'") as told:
        run(make_config(tmp_path / "out", tiny_model, good, bad), log=lambda _: None)
    assert "Traceback" not in str(told.value)
    assert told.value.__notes__[-1].startswith("In a worker:")
    assert OutputFolder(str(tmp_path / "out")).list() == []
