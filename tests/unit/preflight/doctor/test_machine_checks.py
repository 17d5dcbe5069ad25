"""Packages, compiler, memory and disks, as they are here and as they are described."""

import pytest

from flexray.preflight.doctor import packages
from flexray.preflight.doctor.machine_checks import check_compiler, check_disk, check_gpu, check_memory


def statuses(results):
    return [result.status for result in results]


def test_this_environment_has_what_the_project_requires():
    assert "fail" not in statuses(packages.check_packages(None))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that requires this, and was tested with that."""

    def write(dependencies, tested="", python=">=3.11"):
        text = f"[project]\nrequires-python = {python!r}\ndependencies = {dependencies!r}\n"
        (tmp_path / "pyproject.toml").write_text(text)
        (tmp_path / "constraints.txt").write_text(f"# tested on Linux\n{tested}\n")
        monkeypatch.setattr(packages, "PROJECT", tmp_path)

    return write


def test_packages_that_are_missing_or_too_old_fail(project):
    project(["torch>=99", "no-such-package", "rich"])
    (found,) = packages.check_packages(None)
    assert found.status == "fail"
    assert "torch 2." in found.what
    assert ">=99 is needed; no-such-package is missing" in found.what
    assert "pip install" in found.advice


def test_a_python_that_is_too_old_fails(project):
    project(["rich"], python=">=3.99")
    old, _ = packages.check_packages(None)
    assert old.status == "fail"
    assert old.what.endswith(", but >=3.99 is needed")


def test_a_version_that_was_not_tested_is_a_warning_and_a_local_build_is_none(project):
    import torch

    project(["torch", "rich"], tested=f"torch=={torch.__version__.partition('+')[0]}\nrich==0.1")
    (found,) = packages.check_packages(None)
    assert found.status == "warn"
    assert "(tested: 0.1)" in found.what
    assert "torch" not in found.what


def test_where_flexray_is_installed_without_its_sources_its_metadata_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "PROJECT", tmp_path)
    (found,) = packages.check_packages(None)
    assert found.status == "pass"
    assert "tested" not in found.what


def test_no_compiler_is_needed_for_another_backend(config_of):
    (found,) = check_compiler(config_of(engine={"backend": "sdpa"}))
    assert (found.status, found.what) == ("pass", "none is needed: engine.backend is sdpa")
    assert statuses(check_compiler(config_of(engine={"backend": "flex"}))) == ["pass"]


def test_a_gpu_that_is_asked_for_must_be_there(config_of, told):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert statuses(check_gpu(None)) == ["pass"]
    assert statuses(told(config_of(model={"device": "cuda"}), "device")) == ["pass", "fail"]


def test_shared_memory_that_is_smaller_than_the_object_store_is_a_warning(config_of):
    small, large = ({"object_store_mb": size} for size in (80, 2**30))
    assert [statuses(check_memory(config_of(ray=r)))[1] for r in (small, large)] == ["pass", "warn"]


def test_all_places_that_are_written_to_are_named_with_their_room(config_of, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    found = list(check_disk(config_of()))
    text = " ".join(result.what for result in found)
    for place in (f"output ({tmp_path}/out)", f"compiled kernels ({tmp_path}/kernels)", "Ray (", "temporary"):
        assert place in text
    assert list(tmp_path.iterdir()) == [tmp_path / "qa.jsonl"]


def test_a_place_that_cannot_be_written_fails_and_the_others_are_told(config_of, tmp_path, monkeypatch):
    (tmp_path / "kernels").write_text("in the way")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    found = list(check_disk(config_of()))
    (failed,) = [result for result in found if result.status == "fail"]
    assert f"compiled kernels: {tmp_path}/kernels cannot be written: a file is in the way" in failed.what
    assert {"output", "Ray"} <= {result.what.partition(" for ")[2].partition(" (")[0] for result in found}
