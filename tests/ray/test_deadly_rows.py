"""What kills its process: a row that does each time becomes an error row, and all others are answered."""

import pytest

from flexray.runs.run import run
from tests.ray.jobs import assert_whole, make_config, question, rows_of, write


@pytest.mark.slow
def test_a_row_that_kills_its_actor_each_time_becomes_an_error_row(inject, tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(6)])
    inject({"point": "pipeline.answer", "match": {"row_ids": "*test/q4*"}, "action": "kill", "times": None})
    run(make_config(tmp_path / "out", tiny_model, data), log=lambda _: None)
    assert_whole(tmp_path / "out", 6)
    rows = rows_of(tmp_path / "out")
    assert [row_id for row_id, row in rows.items() if row["error"]] == ["qa/test/q4"]
    assert "crashed each time" in rows["qa/test/q4"]["error"]


def test_an_actor_whose_device_is_lost_ends_and_another_answers_its_shard(inject, tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(6)])
    inject(
        {
            "point": "engine.prefill",
            "action": "raise:torch.AcceleratorError",
            "times": 1,
            "ledger": str(tmp_path / "ledger"),
        }
    )
    run(make_config(tmp_path / "out", tiny_model, data), log=lambda _: None)
    assert_whole(tmp_path / "out", 6)
    assert not [row for row in rows_of(tmp_path / "out").values() if row["error"]]
    assert len(list((tmp_path / "ledger").iterdir())) > 1  # it was tried again
