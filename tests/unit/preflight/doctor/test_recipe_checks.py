"""What a configuration names: model and data can be read, the output's storage is tried without a trace."""

import pytest

from flexray.preflight.plan.memory import count_parameters
from flexray.sink import OutputFolder, hold, verify
from tests.ray.jobs import question
from tests.unit.sink.builders import finished


def test_a_model_and_data_that_can_be_used_pass(config_of, told):
    config = config_of()
    (checkpoint,), (rows,) = told(config, "model"), told(config, "data")
    assert (checkpoint.status, rows.status) == ("pass", "pass")
    assert "2,048 tokens" in checkpoint.what
    assert "files: 1; 3 rows read, the first of" in rows.what


@pytest.mark.parametrize(
    ("dtype", "item_bytes"), [("auto", 4), ("float32", 4), ("bfloat16", 2), ("float16", 2)]
)
def test_weights_that_do_not_fit_into_ram_in_the_dtype_they_are_loaded_in_are_a_warning(
    config_of, told, monkeypatch, dtype, item_bytes
):
    config = config_of(model={"dtype": dtype, "device": "cpu"})
    needed = count_parameters(config.model.path) * item_bytes
    for ram, status in ((needed, "pass"), (needed - 1, "warn")):
        monkeypatch.setattr("flexray.preflight.doctor.recipe_checks.ram_bytes", lambda ram=ram: ram)
        (found,) = told(config, "model")
        assert found.status == status, found.what


def test_a_faulty_row_in_the_first_shard_is_a_warning(config_of, told):
    (found,) = told(config_of([question(0), question(1, answers=3)]), "data")
    assert found.status == "warn"
    assert "1 of them faulty" in found.what
    assert "qa.jsonl, row 2" in found.what


def test_what_cannot_be_used_fails_with_what_a_run_would_say(config_of, told, tmp_path):
    config = config_of(data={"files": str(tmp_path / "none.jsonl")}, model={"path": "no/model"})
    (model,), (data,) = told(config, "model"), told(config, "data")
    assert (model.status, data.status) == ("fail", "fail")
    assert "no such model folder; and as a model of the Hugging Face hub" in model.what
    assert "no such file" in data.what


def test_methods_and_metrics_are_looked_at_too(config_of, told):
    config = config_of(methods=["guess"], evaluation={"metrics": ["luck"]})
    assert [told(config, name)[0].status for name in ("methods", "evaluation")] == ["fail", "fail"]


def everything(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_folder_that_is_not_there_is_not_made(config_of, told, tmp_path):
    config = config_of()
    before = everything(tmp_path)
    (found,) = told(config, "output")
    assert found.status == "pass"
    assert str(tmp_path) in found.what
    assert everything(tmp_path) == before


def test_a_folder_with_a_run_at_work_is_tried_and_left_as_it_is(config_of, told, tmp_path):
    config = config_of()
    folder = OutputFolder(config.output)
    finished(folder)
    with hold(folder, log=lambda line: None) as lock:
        before = everything(tmp_path)
        (found,) = told(config, "output")
        lock.check()
        assert everything(tmp_path) == before
    assert f"{tmp_path}/out: a file was written" in found.what
    assert verify(folder).ok


def test_a_folder_that_cannot_be_used_fails(config_of, told, tmp_path):
    (tmp_path / "out").write_text("in the way")
    (found,) = told(config_of(), "output")
    assert found.status == "fail"
    assert "a file is in the way" in found.what


def test_s3_is_tried_and_nothing_is_left(s3, bucket, behind, config_of, told):
    config = config_of().model_copy(update={"output": f"s3://{bucket}/night/out"})
    (found,) = told(config, "output")
    assert found.status == "pass"
    assert f"s3://{bucket}/night/out" in found.what
    assert behind.find(bucket) == []


def test_a_bucket_that_is_not_there_fails(s3, config_of, told):
    config = config_of().model_copy(update={"output": "s3://no-such-bucket/out"})
    (found,) = told(config, "output")
    assert found.status == "fail"
    assert "Create the bucket" in found.what
