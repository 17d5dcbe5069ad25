"""A row that kills its process each time becomes an error row; all others are answered."""

import json
import os
import subprocess

from flexray.faults import VARIABLE
from tests.ray.jobs import assert_whole, flexray_command, make_tree, question, rows_of, write, write_config


def test_a_row_that_kills_its_actor_each_time_becomes_an_error_row(tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(6)])
    config = write_config(tmp_path, make_tree(tmp_path / "out", tiny_model, data))
    deadly = {"point": "pipeline.answer", "match": {"row_ids": "*test/q4*"}, "action": "kill", "times": None}
    done = subprocess.run(
        flexray_command(config),
        env={**os.environ, VARIABLE: json.dumps([deadly])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "out", 6)
    rows = rows_of(tmp_path / "out")
    assert [row_id for row_id, row in rows.items() if row["error"]] == ["qa/test/q4"]
    assert "died each time" in rows["qa/test/q4"]["error"]
