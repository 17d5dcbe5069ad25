"""What a user can put right is one message and exit code 2, also where a worker comes upon it."""

import re
import shutil

import pytest
import torch

from tests.ray.jobs import flexray_here, make_tree, question, rows_of, write, write_config


@pytest.fixture
def tree(local_ray, tiny_model, tmp_path):
    """The configuration of a run of six rows in two shards."""
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(6)])
    return make_tree(tmp_path / "out", tiny_model, data)


@pytest.fixture
def refused(tree, tmp_path):
    """Starts the run, which a worker has to refuse, and returns the message."""

    def refused():
        code, _, errors = flexray_here("run", "--config", write_config(tmp_path, tree))
        assert code == 2, errors
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
        return errors

    return refused


def test_a_plan_file_that_is_lost_under_way(tree, refused, tmp_path, monkeypatch):
    monkeypatch.setattr("flexray.runs.run.connect_ray", lambda *_: shutil.rmtree(tmp_path / "out" / "plan"))
    message = refused()
    assert f"{tmp_path}/out/plan/0000.parquet: the plan file is missing. Run again" in message


def test_a_storage_that_fails_a_commit(inject, refused, tmp_path):
    at = {"point": "sink.write.before", "match": {"name": "data/qa-test-000001*"}}
    inject({**at, "action": "raise:flexray.storage.error_messages.StorageError", "times": None})
    message = refused()
    assert "injected at sink.write.before" in message
    assert re.search(rf"[03] of the 6 rows of this start are committed in {tmp_path}/out, and stay", message)


def test_a_device_that_no_worker_has(tree, refused):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    tree["model"]["device"] = "cuda"
    assert "model.device is cuda, but the only node has 2 CPUs. Set it to auto or cpu" in refused()
    tree["ray"]["num_gpus_per_actor"] = 0  # the engine itself says so
    assert "device is cuda, but torch finds no CUDA device" in refused()


def test_a_run_whose_first_rows_are_mostly_errors_ends_with_the_reason(local_ray, tiny_model, tmp_path):
    bad = [question(i, question="") for i in range(840)]  # shards may come out of order
    data = write(tmp_path / "questions.jsonl", bad + [question(i) for i in range(840, 1000)])
    tree = make_tree(tmp_path / "out", tiny_model, data, data={"shard_rows": 120})
    code, _, errors = flexray_here("run", "--config", write_config(tmp_path, tree))
    assert code == 2
    told = re.search(
        r"of the first (\d+) rows (\d+) are errors and 0 have an empty answer, so the run has", errors
    )
    assert told, errors
    assert 200 <= int(told[1]) < 2 * int(told[2])
    assert "limits.stop_early=false goes on" in errors
    assert f"{told[2]} rows: " in errors
    assert "questions.jsonl, row 1, field 'question': the text is empty" in errors
    rows = rows_of(tmp_path / "out")
    assert 240 <= len(rows) < 1000
