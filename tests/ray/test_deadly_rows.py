"""A row that kills its process each time becomes an error row; all others are answered."""

import pytest

from tests.ray.jobs import assert_whole, flexray_run, make_tree, question, rows_of, write, write_config


@pytest.mark.slow
def test_a_row_that_kills_its_actor_each_time_becomes_an_error_row(tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(6)])
    config = write_config(tmp_path, make_tree(tmp_path / "out", tiny_model, data))
    deadly = {"point": "pipeline.answer", "match": {"row_ids": "*test/q4*"}, "action": "kill", "times": None}
    done = flexray_run(config, faults=[deadly])
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "out", 6)
    rows = rows_of(tmp_path / "out")
    assert [row_id for row_id, row in rows.items() if row["error"]] == ["qa/test/q4"]
    assert "died each time" in rows["qa/test/q4"]["error"]


def test_an_actor_whose_device_is_lost_ends_and_another_answers_its_shard(tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(6)])
    tree = make_tree(tmp_path / "out", tiny_model, data, limits={"max_error_share": 0})
    lost = {
        "point": "engine.prefill",
        "action": "raise:torch.AcceleratorError",
        "times": 1,
        "ledger": str(tmp_path / "ledger"),
    }
    done = flexray_run(write_config(tmp_path, tree), faults=[lost])
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "out", 6)
    assert not [row for row in rows_of(tmp_path / "out").values() if row["error"]]
    assert len(list((tmp_path / "ledger").iterdir())) > 1  # it was tried again


def test_a_run_with_more_error_rows_than_its_limit_exits_with_1_and_is_whole(tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(0), question(1, question=5)])
    tree = make_tree(tmp_path / "out", tiny_model, data, limits={"max_error_share": 0.1})
    done = flexray_run(write_config(tmp_path, tree))
    assert done.returncode == 1, done.stderr
    assert "1 of 2 rows are errors, more than limits.max_error_share (0.1) allows" in done.stderr
    assert_whole(tmp_path / "out", 2)
