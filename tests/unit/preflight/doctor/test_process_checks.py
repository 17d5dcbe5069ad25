"""What may hang or crash is done in a process of its own: attention and Ray."""

import json
import os
import subprocess
import sys

import pytest
import torch

from flexray.config import EngineConfig
from flexray.preflight.doctor import process_checks, process_tasks
from flexray.preflight.doctor.process_checks import in_process
from flexray.preflight.doctor.process_tasks import check_attention, compare_backends

MODULES = {
    "answers": "import json, sys; c = json.load(sys.stdin); print('noise'); "
    "print(json.dumps([{'status': 'pass', 'what': f'{sys.argv[1]} of {c[\"data\"][\"name\"]}'}]))",
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "raises": "raise ValueError('no such thing')",
    "hangs": "import time; time.sleep(60)",
}


@pytest.fixture
def call(tmp_path, monkeypatch, config_of):
    """Has one of MODULES make a check."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)

    def call(name, seconds=30.0):
        monkeypatch.setattr(process_checks, "TASKS", name)
        (found,) = in_process("look", seconds, "Look.")(config_of())
        return found.status, found.what

    return call


def test_a_process_is_given_the_configuration_and_tells_its_findings(call):
    assert call("answers") == ("pass", "look of qa")


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        ("crashes", 30, "was killed by SIGSEGV"),
        ("raises", 30, "ended with exit code 1: "),
        ("raises", 30, "ValueError: no such thing"),
        ("hangs", 0.5, "gave no answer in 0 s"),
    ],
)
def test_a_process_that_fails_says_how(call, name, seconds, message):
    status, what = call(name, seconds)
    assert status == "fail"
    assert message in what


def test_flex_is_compiled_and_answers_as_eager_does():
    found = compare_backends(EngineConfig(), "cpu", "float32", 3, 64)
    assert found.status == "pass"
    # of 4 prompts, fused and by each of 3 paraphrases
    assert "flex on CPU in float32: 16 of 16 answers are those of eager" in found.what


@pytest.mark.slow
def test_without_a_compiler_it_is_told_that_a_run_falls_back(tmp_path):
    nowhere = {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kernels")}
    command = [sys.executable, "-m", "flexray.cli", "doctor", "--json"]
    done = subprocess.run(command, env=os.environ | nowhere, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {result["check"]: result for result in json.loads(done.stdout)}
    assert found["compiler"]["status"] == found["attention"]["status"] == "warn"
    assert "no C++ compiler" in found["compiler"]["what"]
    assert "flex on CPU in float32" in found["attention"]["what"]
    assert "engine.backend to sdpa" in found["attention"]["advice"]


SAID = [(1, 2)] * 16
OTHER = [(1, 2)] * 15 + [(1, 3)]


@pytest.mark.parametrize(
    ("got", "strict", "dtype", "status"),
    [
        (SAID, True, "float32", "pass"),
        (OTHER, False, "float32", "fail"),
        (OTHER, False, "bfloat16", "pass"),
        (torch.OutOfMemoryError("no kernel"), False, "float32", "warn"),
        (torch.OutOfMemoryError("no kernel"), True, "float32", "fail"),
        (RuntimeError("a bug"), False, "float32", "fail"),
    ],
)
def test_wrong_answers_fail_and_errors_if_a_run_would_stop(monkeypatch, got, strict, dtype, status):
    def answers(backend, *_):
        if backend != "eager" and isinstance(got, Exception):
            raise got
        return SAID if backend == "eager" else got

    monkeypatch.setattr(process_tasks, "_answers", answers)
    assert compare_backends(EngineConfig(strict=strict), "cpu", dtype, 3, 64).status == status


def test_eager_needs_no_check(config_of):
    (found,) = check_attention(config_of(engine={"backend": "eager"}))
    assert found.status == "pass"


@pytest.mark.slow
def test_a_ray_is_started_and_ended(config_of):
    (found,) = in_process("ray", 100, "Check.")(config_of())
    assert found.status == "pass", found
    assert "a Ray on this machine did a task on" in found.what
    assert "nodes: 1, CPUs: 1" in found.what


def test_a_cluster_that_does_not_answer_fails(config_of):
    (found,) = in_process("ray", 100, "Check.")(config_of(ray={"address": "127.0.0.1:9"}))
    assert found.status == "fail"
    assert "no Ray cluster answers at 127.0.0.1:9" in found.what
