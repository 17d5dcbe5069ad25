"""Whatever is damaged: verify finds it and says what to do, repair moves it aside, a resume completes."""

import json

import pytest

from flexray.sink import committed_shards, compact, read_committed, repair, verify
from flexray.sink.commit.manifests import list_manifests
from flexray.sink.records import RUN_FILE, manifest_name
from tests.unit.sink.builders import PLAN_FILE, SHARDS, B, finished, table
from tests.unit.sink.damages import COMPACT_DAMAGES, DAMAGES, contents, files, quiet, resume

WHERE = {"single": DAMAGES, "compacted later": DAMAGES, "compacted before": COMPACT_DAMAGES}
CASES = [(where, name) for where, damages in WHERE.items() for name in damages]


@pytest.fixture(params=CASES, ids=lambda case: " - ".join(case))
def case(request, folder):
    """A damaged output and its damage."""
    where, name = request.param
    run = finished(folder)
    manifests = committed_shards(folder, run)
    if where == "compacted before":
        compact(folder, run.fingerprint, max_singles=0)
    damage = WHERE[where][name]
    damage.do(folder, manifests)
    if where == "compacted later":
        compact(folder, run.fingerprint, max_singles=0)
    return folder, damage


def test_damage_is_found_and_the_advice_says_what_to_do(case):
    folder, damage = case
    report = verify(folder)
    findings = {finding.kind: finding for finding in report.findings}
    assert findings.keys() >= damage.kinds
    assert findings.keys() <= damage.kinds | {"missing_rows", "orphans"}
    for kind in damage.kinds:
        assert damage.advice in findings[kind].advice
    assert report.ok == (findings.keys() <= {"orphans", "foreign_files"})
    told = json.loads(json.dumps(report.to_dict()))
    assert (told["ok"], len(told["findings"])) == (report.ok, len(report.findings))


def test_what_is_damaged_is_moved_aside_and_a_resume_completes_the_run(case):
    folder, damage = case
    before = contents(folder)
    redo = len(damage.bad) * 4
    result = repair(folder, log=quiet)
    run_is_known = damage.kinds != {"run_record_damaged"}
    if run_is_known:
        assert result.rows_to_redo == redo
        left = {finding.kind for finding in verify(folder).findings if not finding.harmless}
        assert left - {"plan_missing"} == ({"missing_rows"} if damage.bad else set())
        assert ("plan_missing" in left) == bool(damage.kinds & {"plan_damaged", "plan_missing"})
    assert contents(folder) >= before
    assert resume(folder) == damage.bad
    assert verify(folder).ok
    assert list(read_committed(folder)) == [table(spec) for spec in SHARDS]
    assert repair(folder, log=quiet).summary_line() == "quarantined=0 rows_to_redo=0"


def test_a_dry_run_says_the_same_and_changes_nothing(case):
    folder, _ = case
    before = files(folder)
    said = []
    dry = repair(folder, dry_run=True, log=said.append)
    assert files(folder) == before
    assert len([line for line in said if line.startswith("would move ")]) == len(dry.moved)
    assert dry.quarantine == ""
    real = repair(folder, log=quiet)
    assert (real.moved, real.summary_line()) == (dry.moved, dry.summary_line())


@pytest.mark.parametrize("kind", ["run", "plan", "manifest", "compact", "data"])
def test_no_bit_can_be_flipped_unnoticed(folder, kind):
    run = finished(folder)
    manifests = committed_shards(folder, run)
    if kind == "compact":
        compact(folder, run.fingerprint, max_singles=0)
    name = {
        "run": RUN_FILE,
        "plan": PLAN_FILE,
        "manifest": manifest_name(B.shard_id),
        "compact": (*list_manifests(folder).compacts, "")[0],
        "data": manifests[B.shard_id].file,
    }[kind]
    whole = folder.read_bytes(name)
    for at in range(0, len(whole), max(1, len(whole) // 25)):
        data = bytearray(whole)
        data[at] ^= 1
        folder.write_bytes(name, bytes(data))
        assert verify(folder).damaged, f"byte {at}"
