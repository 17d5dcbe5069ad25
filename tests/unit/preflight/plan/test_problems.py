"""A plan names what stands in a run's way before a GPU is held: all of it, and what to do."""

import json
import socket
from importlib import metadata

import pytest

from flexray.config import RayConfig, versions
from flexray.config.versions import Package
from flexray.preflight.plan import start_plan
from flexray.preflight.plan.data_checks import check_locks, read_first_locks
from flexray.preflight.plan.dry_folder import DryFolder
from flexray.preflight.plan.estimates import Room
from flexray.preflight.plan.resource_checks import check_disk_space
from flexray.sink import OutputFolder, hold
from flexray.sink.lock.file import Owner
from tests.plans import make_plan
from tests.ray.jobs import question


def problems_of(plan, status):
    return [f"{problem.check}: {problem.what}" for problem in plan.problems if problem.status == status]


def test_a_metric_of_methods_that_is_not_known_is_an_error_as_at_a_start(config_of):
    plan = make_plan(config_of(methods=[{"kind": "confidence", "match": "nosuch"}]))
    (error,) = problems_of(plan, "fail")
    assert error.startswith("methods: ")
    assert "nosuch" in error


def test_all_that_is_wrong_is_named_at_once(config_of, tmp_path):
    config = config_of(methods=["guess"], data={"files": str(tmp_path / "none.jsonl")})
    (tmp_path / "out").write_text("in the way")
    config = config.model_copy(update={"model": config.model.model_copy(update={"path": "no/model"})})
    plan = make_plan(config)
    errors = problems_of(plan, "fail")
    assert not plan.ready
    assert [error.partition(":")[0] for error in errors] == ["methods", "output", "data", "model"]
    assert "unknown kind 'guess'; known: attention" in errors[0]
    assert (
        f"{tmp_path}/out: the output folder cannot be created or written: a file is in the way" in errors[1]
    )
    assert "no/model: no such model folder" in errors[3]
    assert "none.jsonl: no such file. Correct data.files." in errors[2]


def test_an_output_among_the_data_is_an_error_as_at_a_start(config_of, tmp_path):
    plan = make_plan(config_of(data={"files": f"{tmp_path}/**/*.parquet"}))
    (error, *_) = problems_of(plan, "fail")
    assert error.startswith("output: ")
    assert "/out is within the reach of data.files: " in error
    assert "Give an output outside of it." in error


def test_faulty_rows_below_the_limit_are_a_warning_with_the_first_message(config_of):
    records = [question(i) for i in range(8)] + [question(3), question(8, paraphrases=[])]
    plan = make_plan(config_of(records, limits={"max_error_share": 0.5}))
    warnings = problems_of(plan, "warn")
    assert plan.ready
    assert len(plan.sample.faults) == 2
    assert "qa.jsonl, row 10" in plan.sample.faults[1]
    assert "1 of 10 rows have the id or the content of another row" in warnings[0]
    assert "qa.jsonl, row 9, as " in warnings[0]
    assert "qa.jsonl, row 4)" in warnings[0]
    assert "2 of 10 sampled rows are faulty" in warnings[1]


def test_rows_that_repeat_the_content_of_another_are_a_warning(config_of):
    records = [question(i) for i in range(8)] + [question(2)]
    plan = make_plan(config_of(records, data={"fields": {"id": None}}))
    assert any(
        "1 of 9 rows" in warning and "row 9, as " in warning and "row 3)" in warning
        for warning in problems_of(plan, "warn")
    )


def test_more_faulty_rows_than_the_run_allows_are_an_error(config_of):
    records = [question(i) for i in range(8)] + [question(3), question(8, paraphrases=[])]
    plan = make_plan(config_of(records, limits={"max_error_share": 0.1}))
    (error,) = problems_of(plan, "fail")
    assert not plan.ready
    assert "2 of the 10 output rows of the sample would be errors" in error
    assert "limits.max_error_share (0.1)" in error


def test_prompts_that_are_too_long_for_the_model_are_found(config_of):
    plan = make_plan(config_of([question(0), question(1, question="?", paraphrases=["word " * 3000])]))
    (warning,) = problems_of(plan, "warn")
    assert "the prompt is longer than the context" in warning
    assert len(plan.sample.faults) == 1


def test_weighted_methods_without_confidences_are_an_error(config_of):
    plan = make_plan(config_of(methods=["attention", "weighted_avg"]))
    assert not plan.ready
    assert any("confidences" in error for error in problems_of(plan, "fail"))


def test_weighted_methods_with_confidences_are_none(config_of):
    records = [question(i, confidences=[0.5, 0.25]) for i in range(8)]
    config = config_of(records, methods=["weighted_avg"], data={"fields": {"confidences": "confidences"}})
    assert make_plan(config).problems == []


def test_a_folder_that_holds_another_run_is_an_error_that_says_what_differs(config_of, commit, files):
    commit(0)
    config = config_of(generation={"max_new_tokens": 9})
    before = files()
    plan = make_plan(config)
    (error,) = problems_of(plan, "fail")
    assert "holds another run" in error
    assert "generation.max_new_tokens: 4 -> 9" in error
    assert "--fresh" in error
    assert files() == before


def test_a_folder_of_something_else_is_an_error(config_of, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    (error,) = problems_of(make_plan(config_of()), "fail")
    assert "is not empty and holds no run (thesis.txt)" in error


def test_a_damaged_manifest_is_an_error(config_of, commit):
    (path,) = commit(0).values()
    path.write_text(path.read_text().replace('"rows": 3', '"rows": 2'))
    (error,) = problems_of(make_plan(config_of()), "fail")
    assert "was changed after it was written" in error


def test_a_run_at_work_in_the_folder_is_an_error_and_goes_on(config_of, commit):
    config = config_of()
    commit(0)
    with hold(OutputFolder(config.output), log=lambda line: None) as lock:
        plan = make_plan(config)
        lock.check()
    (error,) = problems_of(plan, "fail")
    assert "another run is at work there: host" in error
    assert plan.data.committed_rows == 3
    assert make_plan(config).problems == []


ME = json.loads(Owner.me().to_bytes())


def owner(**changes):
    return json.dumps(ME | changes).encode()


@pytest.fixture
def locked(config_of, tmp_path):
    """What is said of a folder with this lock, if it is the second one at the second look."""

    def look(before, now):
        run = start_plan(config_of())
        run.folder = DryFolder(run.config.output)
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "_lock-3.json").write_bytes(before)
        list(read_first_locks(run))
        (tmp_path / "out" / "_lock-3.json").write_bytes(now)
        return [problem.status for problem in check_locks(run)]

    return look


def test_the_lock_of_a_dead_process_is_no_problem(locked):
    dead = owner(born="1")  # this pid, but another process had it
    assert locked(dead, dead) == []


def test_a_silent_lock_of_another_machine_is_a_warning_and_a_beating_one_an_error(locked):
    other = {"machine": "another", "host": "node7"}
    assert locked(owner(**other), owner(**other)) == ["warn"]
    assert locked(owner(**other), owner(**other, beats=1)) == ["fail"]
    assert locked(b"{", b"{") == ["warn"]


def test_a_full_disk_is_an_error_if_the_need_is_measured_and_else_a_warning(config_of):
    run = start_plan(config_of())
    run.folder = DryFolder(run.config.output)
    for measured, status in ((True, "fail"), (False, "warn")):
        run.room = Room(1, "a basis", measured)
        assert [finding.status for finding in check_disk_space(run)] == ["pass"]
        run.room = Room(10**18, "a basis", measured)
        need, problem = check_disk_space(run)
        assert (need.status, problem.status) == ("pass", status)
        assert "1.0 EB (a basis)" in problem.what


def test_an_output_in_the_working_directory_of_a_cluster_job_is_a_warning(config_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of()
    assert make_plan(config).problems == []
    config = config.model_copy(update={"ray": RayConfig(address="ray://head:10001")})
    (warning,) = problems_of(make_plan(config), "warn")
    assert "lies in the working directory, but the run is for the cluster at ray://head:10001" in warning


def test_cuda_that_is_not_there_is_an_error_unless_another_gpu_is_planned_for(config_of):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    config = config_of(model={"device": "cuda"})
    (error,) = problems_of(make_plan(config), "fail")
    assert "torch finds no CUDA device here" in error
    assert make_plan(config, gpu="H100").problems == []


@pytest.fixture
def torch_211(monkeypatch):
    """An installed torch whose FlexAttention is broken on a CPU, as its metadata tell."""
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.11.0" if name == "torch" else version(name))


def test_flexattention_that_a_cpu_cannot_be_trusted_with_is_an_error_beside_the_others(config_of, torch_211):
    config = config_of(methods=["guess"], model={"device": "cpu"}, engine={"backend": "flex"})
    errors = problems_of(make_plan(config), "fail")
    assert [error.partition(":")[0] for error in errors] == ["methods", "versions"]
    assert "torch 2.11.0 cannot be trusted with FlexAttention on a CPU" in errors[1]
    assert [error.partition(":")[0] for error in problems_of(make_plan(config, gpu="H100"), "fail")] == [
        "methods"
    ]


def test_versions_that_a_run_refuses_are_an_error_and_untested_ones_a_warning(config_of, monkeypatch):
    monkeypatch.setattr(
        versions, "PACKAGES", {"ray": Package("1.0", "99.0", "old", broken=((">1", "slow"),))}
    )
    (error,) = problems_of(make_plan(config_of()), "fail")
    assert error.startswith("versions: ray ")
    assert " cannot be used (>1: slow)" in error
    monkeypatch.setattr(versions, "PACKAGES", {"ray": Package("1.0", "1.0", "old")})
    plan = make_plan(config_of())
    assert plan.ready
    (warning,) = problems_of(plan, "warn")
    assert warning.startswith("versions: ray ")
    assert "is newer than any that flexray was tested with (1.0)" in warning


def test_a_gpu_without_bfloat16_is_a_warning(config_of):
    (warning,) = problems_of(make_plan(config_of(), gpu="T4"), "warn")
    assert "T4-16GB has no bfloat16" in warning
    assert make_plan(config_of(model={"dtype": "float16"}), gpu="T4").problems == []


def test_credentials_in_a_url_are_not_shown(config_of):
    config = config_of().model_copy(update={"output": f"nosuch://me:secret@{socket.gethostname()}/out"})
    plan = make_plan(config)
    assert [problem.check for problem in plan.problems] == ["output"]
    assert "secret" not in str(plan.to_dict())


def test_engines_that_find_no_cpus_here_are_told_of_before_a_run(config_of, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (error,) = problems_of(make_plan(config_of(ray={"num_cpus": 2, "num_cpus_per_actor": 4})), "fail")
    assert "ray.num_cpus_per_actor: an engine needs 4 CPUs on one node, but the only node has 2" in error
    (error,) = problems_of(make_plan(config_of(ray={"num_cpus": 2, "object_store_mb": 10**7})), "fail")
    assert "ray.object_store_mb is 10,000,000, and this machine has" in error
    fewer = make_plan(config_of(ray={"num_cpus": 2, "min_actors": 3, "max_actors": 4}))
    (warning,) = problems_of(fewer, "warn")
    assert "engines: ray.min_actors is 3, but there is room only for 2 with 1 CPU each" in warning
    assert fewer.ready
    assert make_plan(config_of(ray={"num_cpus": 1})).problems == []
