"""Faults that are made to happen: at their point only, as often as asked, counted over all processes."""

import json
import subprocess
import sys

import pytest

from flexray.config import fault_injection as faults


@pytest.fixture
def inject(monkeypatch, tmp_path):
    def inject(**fault):
        fault = {"point": "p", "action": "raise:KeyError", "ledger": str(tmp_path / "ledger"), **fault}
        monkeypatch.setenv(faults.VARIABLE, json.dumps([fault]))

    return inject


def happens(point="p", **facts):
    try:
        faults.reach(point, **facts)
    except KeyError:
        return True
    return False


def test_without_the_variable_nothing_happens_and_nothing_is_expected(monkeypatch):
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    assert not faults.expected()
    assert not happens()


def test_a_fault_happens_at_its_point_with_its_facts_after_some_and_so_many_times(inject):
    inject(match={"name": "data/*"}, skip=1, times=2)
    assert faults.expected()
    assert not happens("q", name="data/a")
    assert not happens(name="plan")
    assert not happens()
    assert [happens(name="data/a") for _ in range(5)] == [False, True, True, False, False]


def test_a_fault_that_happens_each_time_needs_no_ledger(inject):
    inject(times=None, ledger=None)
    assert [happens() for _ in range(3)] == [True] * 3


def test_processes_count_together_and_a_killed_one_is_killed(inject):
    inject(action="kill", skip=1)
    reach = [sys.executable, "-c", "from flexray.config import fault_injection as faults; faults.reach('p')"]
    assert [subprocess.run(reach).returncode for _ in range(3)] == [0, -9, 0]


def test_faults_of_a_file_can_change_while_a_process_runs(monkeypatch, tmp_path):
    path = tmp_path / "faults.json"
    monkeypatch.setenv(faults.VARIABLE, f"@{path}")
    found = []
    for text in ("[]", '[{"point": "p", "action": "raise:KeyError", "times": null}]', "[]"):
        path.write_text(text)
        found.append(happens())
    assert found == [False, True, False]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"ledger": None}, "the fault at p needs a ledger to be counted"),
        ({"action": "raise:os.path"}, "os.path is no error"),
        ({"action": "explode"}, "unknown action 'explode'"),
    ],
)
def test_a_fault_that_cannot_happen_is_named(inject, fault, message):
    inject(**fault)
    with pytest.raises(ValueError, match=message):
        faults.reach("p")
