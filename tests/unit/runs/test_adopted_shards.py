"""Old shards with answers of different methods: split, counted once, adopted again after a kill."""

from collections import Counter

import pytest

from flexray.sink import OutputFolder, load_run, read_committed, verify, whole_shards
from tests.ray.jobs import question, write
from tests.runs import planned, run_shards
from tests.unit.runs.old_runs import adopt_all, config_of, make_old, rows_in


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, tiny_model):
    """An old run of one shard, whose three rows have other methods' answers each: the second question has no
    confidences for weighted_avg, the third a fault. Do not change it."""
    place = tmp_path_factory.mktemp("mixed")
    data = write(place / "m.jsonl", [question(0), question(1), question(2, question="")])
    more = [{"id": f"q{i}", "paraphrases": [f"Number {i} is what?"]} for i in range(3)]
    write(place / "more.jsonl", [more[0] | {"confidences": [0.5]}, *more[1:]])
    methods, joined = (
        ["attention", "per_prompt", "weighted_avg"],
        {"paraphrase_files": [str(place / "more.jsonl")]},
    )
    run_shards(config_of(place / "old", tiny_model, data, methods=methods, data=joined), [0])
    make_old(place / "old")
    return place


@pytest.fixture
def mixed_config(mixed, tmp_path, tiny_model):
    """A recipe of the same data, which names one method of the old run and a new one."""
    data, joined = mixed / "m.jsonl", {"paraphrase_files": [str(mixed / "more.jsonl")]}
    return config_of(tmp_path / "table", tiny_model, data, methods=["attention", "max"], data=joined)


def counters(output):
    """The engine's counters of a run, over all shards."""
    folder = OutputFolder(str(output))
    stats = [manifest.engine_stats for manifest in whole_shards(folder, load_run(folder)).values()]
    names = ("prefill_tokens", "generated_tokens", "decode_steps", "context_tokens")
    return {name: sum(found.get(name, 0) for found in stats) for name in names}


def test_a_shard_is_split_by_the_methods_that_answered_and_counts_stay_right(mixed, mixed_config):
    done, _ = adopt_all(mixed_config, mixed / "old")
    assert done.summary_line() == "adopted=5 skipped=0 changed=0 errors_left=4"
    folder = OutputFolder(mixed_config.output)
    run = load_run(folder)
    three = ("attention/shared_context/restart", "per_prompt", "weighted_avg")
    assert [(part.methods, sum(part.shards.values())) for part in run.plan] == [(three, 1), (three[:2], 1)]
    assert counters(folder.url) == counters(mixed / "old")
    assert counters(folder.url)["prefill_tokens"] > 0
    first, second = whole_shards(folder, run).values()
    assert (first.engine_stats["counted_in"], second.engine_stats["counted_in"]) == ("", first.shard_id)
    assert first.engine_stats["rounding"] == second.engine_stats["rounding"] != {}
    assert second.seconds == 0 < first.seconds
    assert verify(folder).ok


def test_methods_that_the_recipe_does_not_name_are_brought_in_and_not_shown(mixed, mixed_config):
    adopt_all(mixed_config, mixed / "old")
    shown = [row for table in read_committed(OutputFolder(mixed_config.output)) for row in table.to_pylist()]
    assert {row["method"] for row in shown} == {"attention/shared_context/restart"}
    everything = Counter(method for method, _ in rows_in(mixed_config.output))
    assert everything == {"attention/shared_context/restart": 2, "per_prompt": 2, "weighted_avg": 1}
    job = planned(mixed_config)
    todo = [part for part in job.record.plan if not any(id_ in job.committed for id_ in _ids(job, part))]
    assert {(part.methods, sum(part.shards.values())) for part in todo} == {
        (("max",), 2),
        (("attention/shared_context/restart", "max"), 1),
    }
    run_shards(mixed_config, [i for i, id_ in enumerate(job.record.shards()) if id_ not in job.committed])
    assert verify(OutputFolder(mixed_config.output)).ok


def _ids(job, part):
    return [job.record.shard_id(number) for number in part.shards]


@pytest.mark.parametrize("which", range(1, 8))
def test_a_kill_between_any_two_writes_of_several_parts(mixed, mixed_config, monkeypatch, which):
    write_bytes, writes = OutputFolder.write_bytes, []

    def stop(self, name, data):
        writes.append(name)
        if sum(not name.startswith("_lock") for name in writes) == which:
            raise KeyboardInterrupt
        write_bytes(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "write_bytes", stop)
        with pytest.raises(KeyboardInterrupt):
            adopt_all(mixed_config, mixed / "old")
    adopt_all(mixed_config, mixed / "old")
    report = verify(OutputFolder(mixed_config.output))
    assert (report.ok, report.rows, len(rows_in(mixed_config.output))) == (True, 5, 5)
    assert counters(mixed_config.output) == counters(mixed / "old")
