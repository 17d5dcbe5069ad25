import hashlib

import pyarrow as pa
import pytest

from flexray.errors import OutputError
from flexray.sink import OutputFolder, committed_shards, repair, verify
from flexray.sink.plan.files import write_part
from flexray.sink.records import RUN_FILE, manifest_name
from flexray.sink.records.rows import to_parquet
from tests.unit.sink.builders import (
    PLAN_FILE,
    ROWS,
    A,
    B,
    C,
    commit,
    commit_all,
    edit_json,
    finished,
    forge,
    row,
    start,
    table,
)
from tests.unit.sink.builders import found as found_rows
from tests.unit.sink.damages import ORPHAN


@pytest.fixture
def manifests(folder):
    return committed_shards(folder, finished(folder))


def check(folder, rows, missing=0, doubled=0, damaged=0, unaccounted=0):
    report = verify(folder)
    assert report.summary_line() == (
        f"rows={rows} missing={missing} doubled={doubled} damaged={damaged} unaccounted={unaccounted}"
    )
    assert report.ok == (missing + doubled + damaged + unaccounted == 0)
    assert all(finding.harmless for finding in report.findings) == report.ok
    return report


def found(report, path):
    return [str(finding) for finding in report.findings if finding.path.endswith(path)]


def test_a_finished_run_is_in_order(folder, manifests):
    report = check(folder, rows=12)
    assert (report.planned_rows, report.planned_shards, report.committed_shards) == (12, 3, 3)
    assert report.orphans == ()


def test_an_unfinished_run_misses_rows(folder):
    run = start(folder)
    commit(folder, run, A)
    report = check(folder, rows=4, missing=8)
    assert "not committed" in found(report, f"{B.shard_id}.json")[0]


def test_a_flipped_byte_is_damage_and_the_rows_are_missing(folder, manifests):
    data = bytearray(folder.read_bytes(manifests[B.shard_id].file))
    data[len(data) // 2] ^= 1
    folder.write_bytes(manifests[B.shard_id].file, bytes(data))
    report = check(folder, rows=8, missing=4, damaged=1)
    assert "sha256 differs" in found(report, manifests[B.shard_id].file)[0]
    assert "`flexray repair` moves the shard aside" in found(report, manifests[B.shard_id].file)[0]


def test_a_truncated_file_is_damage(folder, manifests):
    folder.write_bytes(manifests[B.shard_id].file, folder.read_bytes(manifests[B.shard_id].file)[:100])
    assert "has 100 bytes" in found(check(folder, rows=8, missing=4, damaged=1), ".parquet")[0]


def test_a_missing_data_file_is_damage(folder, manifests):
    folder.remove(manifests[B.shard_id].file)
    assert "is missing" in found(check(folder, rows=8, missing=4, damaged=1), ".parquet")[0]


def test_an_orphan_is_told_but_is_no_fault(folder, manifests):
    folder.write_bytes(ORPHAN, to_parquet(table(B)))
    folder.write_bytes("_manifests/.b.json.00.tmp", b"{")
    report = check(folder, rows=12)
    assert report.orphans == (ORPHAN, "_manifests/.b.json.00.tmp")
    assert [(finding.kind, finding.path) for finding in report.findings] == [("orphans", str(folder))]
    assert report.foreign == ()


def test_a_file_of_somebody_else_is_told_but_is_no_fault(folder, manifests):
    folder.write_bytes("data/b-00.parquet", to_parquet(table(B)))
    folder.write_bytes("_manifests/notes.txt", b"mine")
    report = check(folder, rows=12)
    assert report.orphans == ()
    assert report.foreign == ("_manifests/notes.txt", "data/b-00.parquet")


def test_a_doubled_row_is_counted(folder, manifests):
    rows = table(B).to_pylist()
    forge(folder, manifests[B.shard_id], table(B, rows=[*rows, rows[0]]))
    check(folder, rows=13, doubled=1)


def test_a_row_in_two_shards_is_doubled_and_unaccounted(folder, manifests):
    rows = [*table(B).to_pylist(), row(A.row_ids[0], B.shard_id)]
    forge(folder, manifests[B.shard_id], table(B, rows=rows))
    check(folder, rows=13, doubled=1, unaccounted=1)


def test_a_lost_row_is_missing(folder, manifests):
    forge(folder, manifests[B.shard_id], table(B, rows=table(B).to_pylist()[1:]))
    assert (
        "lacks 1 planned row(s) (qa/test/4 by m)"
        in found(check(folder, rows=11, missing=1), f"{B.shard_id}.json")[0]
    )


def test_an_unplanned_row_is_unaccounted(folder, manifests):
    rows = [*table(B).to_pylist()[1:], row("qa/test/invented", B.shard_id)]
    forge(folder, manifests[B.shard_id], table(B, rows=rows))
    check(folder, rows=12, missing=1, unaccounted=1)


def test_an_unplanned_shard_is_not_seen(folder):
    run = start(folder, A.row_ids)
    commit(folder, run, A)
    file = commit(folder, run, B).file
    assert set(check(folder, rows=4).orphans) == {file, manifest_name(B.shard_id)}


def test_an_accounting_that_is_not_that_of_the_rows_is_unaccounted(folder, manifests):
    wrong = manifests[B.shard_id].accounting.model_copy(update={"correct": 3, "prompt_tokens": 1})
    forge(folder, manifests[B.shard_id], table(B), accounting=wrong)
    report = check(folder, rows=12, unaccounted=2)
    assert "correct: 3 -> 4" in found(report, manifests[B.shard_id].file)[0]


def test_rows_in_another_order_are_unaccounted(folder, manifests):
    forge(folder, manifests[B.shard_id], table(B, rows=table(B).to_pylist()[::-1]))
    report = check(folder, rows=12, unaccounted=1)
    assert "its rows are in another order" in found(report, manifests[B.shard_id].file)[0]


def test_rows_that_break_the_rules_are_unaccounted(folder, manifests):
    rows = [row(row_id, B.shard_id, backend_used="eager") for row_id in B.row_ids]
    forge(folder, manifests[B.shard_id], table(B, rows=rows))
    check(folder, rows=12, unaccounted=1)


def test_an_edited_manifest_is_damage(folder, manifests):
    edit_json(folder, manifest_name(B.shard_id), rows=3)
    report = check(folder, rows=8, missing=4, damaged=1)
    assert "was changed after it was written" in found(report, f"{B.shard_id}.json")[0]


def test_a_manifest_that_is_no_json_is_damage(folder, manifests):
    folder.write_bytes(manifest_name(B.shard_id), b"")
    check(folder, rows=8, missing=4, damaged=1)


def test_a_manifest_of_another_run_is_damage(folder, manifests):
    forge(folder, manifests[B.shard_id], table(B), fingerprint="0" * 64)
    check(folder, rows=8, missing=4, damaged=1)


def test_a_copied_manifest_is_damage(folder, manifests):
    folder.write_bytes(manifest_name("qa-test-000003"), folder.read_bytes(manifest_name(B.shard_id)))
    assert f"is the manifest of shard {B.shard_id}" in found(check(folder, rows=12, damaged=1), "3.json")[0]


def test_a_manifest_cannot_name_a_file_outside(folder, manifests):
    folder.write_bytes("secret.parquet", to_parquet(table(B)))
    forged = manifests[B.shard_id].model_copy(update={"file": "data/../secret.parquet"}).sealed()
    folder.write_bytes(manifest_name(B.shard_id), forged.to_bytes())
    check(folder, rows=8, missing=4, damaged=1)


def test_a_lost_manifest_leaves_its_rows_missing_and_its_file_an_orphan(folder, manifests):
    folder.remove(manifest_name(B.shard_id))
    assert check(folder, rows=8, missing=4).orphans == (manifests[B.shard_id].file,)


@pytest.mark.parametrize("column", ["error", "token_ids"])
def test_schema_drift_is_damage(folder, manifests, column):
    forge(folder, manifests[B.shard_id], table(B).drop_columns([column]))
    report = check(folder, rows=8, missing=4, damaged=1)
    assert f"{column}: " in found(report, manifests[B.shard_id].file)[0]


def test_a_file_that_is_no_parquet_is_damage(folder, manifests):
    folder.write_bytes(manifests[B.shard_id].file, b"text")
    truth = {"bytes": 4, "sha256": hashlib.sha256(b"text").hexdigest()}
    folder.write_bytes(
        manifest_name(B.shard_id), manifests[B.shard_id].model_copy(update=truth).sealed().to_bytes()
    )
    assert "is not a Parquet file" in found(check(folder, rows=8, missing=4, damaged=1), ".parquet")[0]


def test_swapped_files_are_damage(folder, manifests):
    a, b = (folder.read_bytes(manifests[name].file) for name in (A.shard_id, B.shard_id))
    folder.write_bytes(manifests[A.shard_id].file, b)
    folder.write_bytes(manifests[B.shard_id].file, a)
    check(folder, rows=4, missing=8, damaged=2)


def test_an_edited_plan_is_damage_and_is_not_used(folder, manifests):
    folder.write_bytes(PLAN_FILE, folder.read_bytes(PLAN_FILE)[::-1])
    assert "is not the file that _run.json names" in found(check(folder, rows=12, damaged=1), PLAN_FILE)[0]


def test_a_lost_plan_is_damage_and_missing_rows_are_still_counted(folder, manifests):
    folder.remove(PLAN_FILE)
    folder.remove(manifest_name(B.shard_id))
    check(folder, rows=8, missing=4, damaged=1)


def test_without_a_plan_doubled_rows_are_counted_and_the_missing_ones_by_their_number(folder, manifests):
    forge(folder, manifests[B.shard_id], table(B, rows=[*table(B).to_pylist()[1:], table(B).to_pylist()[1]]))
    folder.remove(PLAN_FILE)
    report = check(folder, rows=12, missing=1, doubled=1, damaged=1)
    assert "1 row(s) are committed more than once (qa/test/5 by m)" in found(report, "/data")[0]


def test_an_edited_run_record_is_damage(folder, manifests):
    edit_json(folder, RUN_FILE, fingerprint="0" * 64)
    check(folder, rows=12, damaged=1)


def test_faults_of_several_kinds_are_counted_together(folder, manifests):
    folder.remove(manifests[A.shard_id].file)
    edit_json(folder, manifest_name(C.shard_id), seconds=0.0)
    rows = table(B).to_pylist()
    forge(folder, manifests[B.shard_id], table(B, rows=[*rows, rows[0], row("x", B.shard_id)]))
    check(folder, rows=6, missing=8, doubled=1, damaged=2, unaccounted=1)


def test_a_folder_that_is_not_there_or_holds_no_run_is_an_error(tmp_path):
    with pytest.raises(OutputError, match=r"out: holds no run"):
        verify(OutputFolder(str(tmp_path / "out")))
    with pytest.raises(OutputError, match="holds no run"):
        verify(OutputFolder(str(tmp_path)))


def test_verifying_changes_nothing(folder, manifests, tmp_path):
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    verify(folder)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_row_in_two_wrong_shards_is_doubled_but_not_missing(folder, manifests):
    for spec in (B, C):
        rows = [*table(spec).to_pylist(), row(A.row_ids[0], spec.shard_id)]
        forge(folder, manifests[spec.shard_id], table(spec, rows=rows))
    forge(folder, manifests[A.shard_id], table(A, rows=table(A).to_pylist()[1:]))
    check(folder, rows=13, doubled=1, unaccounted=2)


def test_a_row_that_is_planned_in_two_shards_is_doubled(folder):
    run = finished(folder)
    twin = {"methods": ("m",), "fingerprint": run.fingerprint, "shards": [4], "first_shard": 3}
    part = write_part(folder, 1, found_rows([*B.row_ids[1:], "x"]), replaces=pa.array([False] * 4), **twin)
    run = run.model_copy(update={"plan": (*run.plan, part), "next_shard": 4}).sealed()
    folder.write_bytes(RUN_FILE, run.to_bytes())
    report = check(folder, rows=12, missing=4, doubled=3)
    assert "3 row(s) are planned in two shards (qa/test/5 by m" in found(report, "/plan")[0]
    assert "a fault of flexray" in found(report, "/plan")[0]
    commit_all(folder, run)
    check(folder, rows=16, doubled=3)
    part = write_part(
        folder, 1, found_rows([*B.row_ids[1:], "x"]), replaces=pa.array([True] * 3 + [False]), **twin
    )
    run = run.model_copy(update={"plan": (*run.plan[:1], part)}).sealed()
    folder.write_bytes(RUN_FILE, run.to_bytes())
    check(folder, rows=16)


def test_each_plan_file_that_is_damaged_is_found(folder):
    finished(folder)
    finished(folder, [*ROWS[:6], "x", "y"])
    names = folder.list("plan")
    assert names == ["0000.parquet", "0001.parquet", "0002-left-out.parquet"]
    for name in names:
        folder.write_bytes(f"plan/{name}", folder.read_bytes(f"plan/{name}")[:-1])
    report = check(folder, rows=14, damaged=3)
    assert [finding.name for finding in report.findings] == [f"plan/{name}" for name in names]
    repair(folder, log=lambda line: None)
    assert finished(folder).selection.left_out.rows == 2
    check(folder, rows=14)
