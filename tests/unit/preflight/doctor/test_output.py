"""The output's storage is tried without a trace, beside a run too."""

import pytest

from flexray.errors import OutputError
from flexray.preflight.doctor.output import check_output
from flexray.sink import OutputFolder, hold, verify
from tests.unit.sink.builders import finished


def everything(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_folder_that_is_not_there_is_not_made(config_of, tmp_path):
    config = config_of()
    before = everything(tmp_path)
    (found,) = check_output(config)
    assert found.status == "pass"
    assert str(tmp_path) in found.what
    assert everything(tmp_path) == before


def test_a_folder_with_a_run_at_work_is_tried_and_left_as_it_is(config_of, tmp_path):
    config = config_of()
    folder = OutputFolder(config.output)
    finished(folder)
    with hold(folder, log=lambda line: None) as lock:
        before = everything(tmp_path)
        (found,) = check_output(config)
        lock.check()
        assert everything(tmp_path) == before
    assert f"{tmp_path}/out: a file was written" in found.what
    assert verify(folder).ok


def test_a_folder_that_cannot_be_used_raises_what_a_run_would_say(config_of, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OSError, match="a file is in the way"):
        list(check_output(config_of()))


def test_s3_is_tried_and_nothing_is_left(s3, bucket, behind, config_of):
    config = config_of().model_copy(update={"output": f"s3://{bucket}/night/out"})
    (found,) = check_output(config)
    assert found.status == "pass"
    assert f"s3://{bucket}/night/out" in found.what
    assert behind.find(bucket) == []


def test_a_bucket_that_is_not_there_fails(s3, config_of):
    config = config_of().model_copy(update={"output": "s3://no-such-bucket/out"})
    with pytest.raises(OutputError, match="Create the bucket"):
        list(check_output(config))
