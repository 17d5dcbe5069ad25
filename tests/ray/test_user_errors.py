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


def test_a_mended_row_or_one_that_is_left_out_is_no_error_any_more(local_ray, tiny_model, tmp_path):
    rows = [question(i) for i in range(6)]
    data = write(tmp_path / "questions.jsonl", rows[:3] + [question(i, question="") for i in range(3, 6)])
    tree = make_tree(tmp_path / "out", tiny_model, data, limits={"max_error_share": 0.05})
    recipe = write_config(tmp_path, tree)

    def told(*words: str) -> tuple[int, str]:
        code, printed, errors = flexray_here(*words)
        return code, printed + errors

    code, text = told("run", recipe)
    assert code == 1
    assert "3 of 6 rows are errors" in text
    code, text = told("run", recipe, "--set", "data.limit=3")
    assert (code, "rows are errors" in text) == (0, False), text
    assert "retried=0 " in told("retry-errors", recipe)[1]
    assert "retried=3 answered=0 still_errors=3" in told("run", recipe)[1] + told("retry-errors", recipe)[1]
    write(data, rows)
    code, text = told("run", recipe)
    assert code == 0, text
    assert re.search(r"^errors +0 *$", text, re.MULTILINE), text
    assert re.search(r"^rows +6 *$", text, re.MULTILINE), text
    assert "retried=0 " in told("retry-errors", recipe)[1]
    code, text = told("nightly", recipe)
    assert (code, "complete, 6 rows" in text) == (0, True), text
    page = tmp_path / "page.html"
    assert told("report", str(tmp_path / "out"), "--html", str(page))[0] == 0
    assert "of 6 planned" in page.read_text()
