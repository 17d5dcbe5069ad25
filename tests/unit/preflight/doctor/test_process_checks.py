"""What may hang or crash is done in a process of its own: attention and Ray."""

import json
import os
import subprocess
import sys

import pytest

from flexray.config import EngineConfig
from flexray.preflight.doctor.process_checks import (
    ProcessError,
    call_module,
    check_attention,
    check_cluster,
    judge,
)
from flexray.preflight.doctor.process_tasks import compare_backends

MODULES = {
    "answers": "import json, sys; print('noise'); print(json.dumps({'got': json.load(sys.stdin)}))",
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "raises": "raise ValueError('no such thing')",
    "hangs": "import time; time.sleep(60)",
}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls one of MODULES."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return lambda name, seconds=30.0: call_module(name, {"a": 1}, seconds)


def test_a_process_answers_what_it_is_asked(call):
    assert call("answers") == {"got": {"a": 1}}


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        ("crashes", 30, "was killed by SIGSEGV"),
        ("raises", 30, "ended with exit code 1: .*ValueError: no such thing"),
        ("hangs", 0.5, "gave no answer in 0 s"),
    ],
)
def test_a_process_that_fails_says_how(call, name, seconds, message):
    with pytest.raises(ProcessError, match=message):
        call(name, seconds)


def test_flex_is_compiled_and_answers_as_eager_does():
    task = {"backend": "flex", "device": "cpu", "dtype": "float32", "heads": 3, "width": 64}
    found = compare_backends(task)
    assert found["error"] == ""
    assert found["same"] == found["answers"] == 16  # of 4 prompts, fused and by each of 3 paraphrases
    assert judge(found, EngineConfig(), "float32").status == "pass"


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


FOUND = {"device": "CPU", "seconds": 1.0, "error": "", "falls_back": False, "same": 16, "answers": 16}


@pytest.mark.parametrize(
    ("changes", "strict", "dtype", "status"),
    [
        ({}, True, "float32", "pass"),
        ({"same": 15}, False, "float32", "fail"),
        ({"same": 15}, False, "bfloat16", "pass"),
        ({"error": "flex: no kernel", "falls_back": True}, False, "float32", "warn"),
        ({"error": "flex: no kernel", "falls_back": True}, True, "float32", "fail"),
        ({"error": "flex: a bug"}, False, "float32", "fail"),
    ],
)
def test_wrong_answers_fail_and_errors_if_a_run_would_stop(changes, strict, dtype, status):
    assert judge(FOUND | changes, EngineConfig(strict=strict), dtype).status == status


def test_eager_needs_no_check(config_of):
    (found,) = check_attention(config_of(engine={"backend": "eager"}))
    assert found.status == "pass"


@pytest.mark.slow
def test_a_ray_is_started_and_ended(config_of):
    (found,) = check_cluster(config_of())
    assert found.status == "pass", found
    assert "a Ray on this machine did a task on" in found.what
    assert "nodes: 1, CPUs: 1" in found.what


def test_a_cluster_that_does_not_answer_fails(config_of):
    (found,) = check_cluster(config_of(ray={"address": "127.0.0.1:9"}))
    assert found.status == "fail"
    assert "the cluster at 127.0.0.1:9 ended with exit code 1" in found.what
    assert "no Ray cluster answers at 127.0.0.1:9" in found.what
