"""A plan says what a run would do, and leaves no trace."""

import pytest

from flexray.sink import Manifest, OutputFolder, committed_shards, load_run
from tests.plans import make_plan
from tests.ray.jobs import make_config, question, write
from tests.runs import run_shards


def test_a_plan_counts_rows_shards_and_what_each_method_answers(config_of):
    plan = make_plan(config_of(methods=["attention", "per_prompt"]))
    data = plan.data
    assert plan.ready
    assert plan.problems == []
    assert tuple(method.name for method in plan.methods) == ("attention/shared_context/restart", "per_prompt")
    assert (data.name, data.files, data.rows, data.shards, data.output_rows) == ("qa/test", 1, 8, 3, 16)
    assert (data.committed_rows, data.committed_shards, data.left_rows, data.left_shards) == (0, 0, 16, 3)


def test_prompts_of_the_sample_are_those_of_the_run(config_of):
    config = config_of(methods=["attention", "per_prompt"])
    manifests = run_shards(config, [0, 1, 2])
    plan = make_plan(config)
    in_output = sum(manifest.accounting.prompt_tokens for manifest in manifests) / 2  # two methods
    sample = plan.sample
    assert (sample.rows, sample.faults) == (8, [])
    assert sample.prompt_tokens.min * 8 <= in_output <= sample.prompt_tokens.max * 8
    prefilled = sum(manifest.engine_stats["prefill_tokens"] for manifest in manifests)
    assert plan.work.prefill_tokens * 8 == prefilled
    assert plan.work.answers == 1 + sample.paraphrases.median == 3


@pytest.mark.parametrize("committed", [[], [0, 2]])
def test_a_plan_leaves_no_trace(config_of, commit, files, committed):
    config = config_of()
    if committed:
        commit(*committed)
    before = files()
    plan = make_plan(config)
    assert plan.ready
    assert plan.data.committed_shards == len(committed)
    assert files() == before


def test_the_time_left_is_taken_from_what_is_committed(config_of, commit):
    manifests = [Manifest.parse(path.read_bytes(), str(path)) for path in commit(0, 2).values()]
    plan = make_plan(config_of(ray={"max_actors": 2}))
    (estimate,) = plan.estimates
    assert (plan.data.committed_rows, plan.data.left_rows) == (5, 3)
    assert not estimate.rough
    assert estimate.rows_per_second == pytest.approx(sum(m.rows / m.seconds for m in manifests) / 2)
    assert estimate.actors == 1  # one shard is left
    assert estimate.seconds == pytest.approx(3 / estimate.rows_per_second)
    assert estimate.gpu_hours is None
    assert "Measured: median of 2 committed shards" in estimate.basis
    assert "on cpu" in estimate.basis
    each = sum(m.bytes for m in manifests) / 5
    assert plan.room.bytes == int(3 * each)


def test_a_finished_run_needs_no_time(config_of, commit):
    commit(0, 1, 2)
    plan = make_plan(config_of())
    assert plan.ready
    assert plan.data.left_rows == 0
    assert plan.estimates == ()


def test_the_speed_of_another_output_is_used_and_what_differs_is_named(config_of, tmp_path):
    other = config_of(generation={"max_new_tokens": 2}, methods=["origin"])
    run_shards(other, [0])
    config = config_of().model_copy(update={"output": str(tmp_path / "new")})
    plan = make_plan(config, like=str(tmp_path / "out"))
    (estimate,) = plan.estimates
    assert f"committed shards of {tmp_path}/out" in estimate.basis
    assert "that run differs in generation" in estimate.basis
    assert plan.data.committed_rows == 0


def test_without_a_basis_there_is_no_figure(config_of):
    assert make_plan(config_of()).estimates == ()
    assert make_plan(config_of(), gpu_memory=24).estimates == ()


def test_the_sample_is_spread_over_the_shards_and_the_same_each_time(config_of):
    config = config_of([question(i) for i in range(40)], data={"shard_rows": 2})
    first, second = make_plan(config, sample_rows=10), make_plan(config, sample_rows=10)
    assert first.sample.rows == 10
    assert first.findings == second.findings
    assert first.to_dict() == second.to_dict()
    assert make_plan(config, sample_rows=1000).sample.rows == 40


def test_few_shots_that_are_drawn_are_part_of_the_context(config_of, tmp_path):
    shots = write(tmp_path / "shots.jsonl", [question(100 + i) for i in range(4)])
    drawn = {"few_shots": [], "few_shot_data": {"files": str(shots), "count": 3}}
    with_them = len(make_plan(config_of(prompt=drawn)).sample.prompts[0].context)
    assert with_them > len(make_plan(config_of(prompt={"few_shots": []})).sample.prompts[0].context)


def test_a_run_resumes_after_a_plan(config_of, commit):
    config = config_of()
    commit(1)
    make_plan(config)
    folder = OutputFolder(config.output)
    assert list(committed_shards(folder, load_run(folder))) == ["qa-test-000001"]
    assert len(run_shards(config, [1, 2])) == 3


def test_a_run_on_s3_is_planned_without_a_trace(s3, bucket, behind, tmp_path, tiny_model):
    data = write(tmp_path / "qa.jsonl", [question(i) for i in range(8)])
    config = make_config(f"s3://{bucket}/night/out", tiny_model, data)
    new = make_plan(config)
    assert (new.ready, new.data.committed_rows, behind.find(bucket)) == (True, 0, [])
    run_shards(config, [0])
    before = behind.find(bucket, detail=True)
    plan = make_plan(config)
    assert (plan.ready, plan.data.committed_rows, plan.data.left_rows) == (True, 3, 5)
    assert behind.find(bucket, detail=True) == before


def test_a_bucket_that_is_not_there_is_an_error(s3, config_of):
    plan = make_plan(config_of().model_copy(update={"output": "s3://no-such-bucket/out"}))
    assert not plan.ready
    (problem,) = plan.problems
    assert "s3://no-such-bucket/out: the output folder cannot be created or written" in problem.what
    assert "Create the bucket" in problem.what
    assert plan.data.rows == 8
