"""Data sets made from committed rows, and read back."""

from pathlib import Path

import pytest

from flexray.config import parse_config
from flexray.runs.data_sets import check_export, write_confidences
from flexray.sink import OutputFolder
from tests.unit.data.conftest import data_config, read_all
from tests.unit.data.conftest import write as write_records
from tests.unit.sink.builders import commit, planned, row, start, table

QUESTIONS = [{"qId": f"w{i}", "qText": f"who is {i}?", "answers": [f"a{i}"]} for i in range(3)]


@pytest.fixture
def rated(tmp_path):
    """The output of a job that rated each question, which is its first paraphrase, and two others."""
    folder = OutputFolder(str(tmp_path / "out"))
    folder.prepare()
    run = start(folder, [f"qa/test/w{i}" for i in range(len(QUESTIONS))])
    (spec,) = planned(folder, run)
    rows = [
        row(
            f"qa/test/w{i}",
            spec.shard_id,
            source_id=question["qId"],
            question=question["qText"],
            paraphrases=[question["qText"], f"{i} is who?", f"tell me who {i} is"],
            confidences=[0.25, 0.75, 0.5],
            num_manual=1,
        )
        for i, question in enumerate(QUESTIONS)
    ]
    commit(folder, run, spec, table=table(spec, rows=rows))
    return folder


@pytest.mark.parametrize("extension", ["jsonl", "parquet"])
@pytest.mark.parametrize("included", [True, False])
def test_confidences_read_back_as_joined_paraphrases_are_those_that_were_written(
    rated, tmp_path, extension, included
):
    written = write_confidences(rated, str(tmp_path / f"rated.{extension}"))
    assert (written.records, written.paraphrases, written.errors) == (3, 9, 0)
    data = write_records(tmp_path / "in.json", QUESTIONS)
    config = data_config(data, kind="webqa", paraphrase_files=written.path, include_question=included)
    assert [(q.error, q.paraphrases, q.confidences, q.num_manual) for q in read_all(config)] == [
        ("", (f"who is {i}?", f"{i} is who?", f"tell me who {i} is"), (0.25, 0.75, 0.5), int(included))
        for i in range(3)
    ]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/x.jsonl", "/x.jsonl"),
        ("file:///x.jsonl", "/x.jsonl"),
        ("x.jsonl", "{here}/x.jsonl"),
        ("sub/x.jsonl", "{here}/sub/x.jsonl"),
        ("s3://bucket/x.jsonl", "s3://bucket/x.jsonl"),
        ("s3://bucket/sub/x.jsonl", "s3://bucket/sub/x.jsonl"),
    ],
)
def test_the_file_is_where_its_path_says(monkeypatch, tmp_path, path, place):
    monkeypatch.chdir(tmp_path)
    prepared = []
    monkeypatch.setattr(OutputFolder, "prepare", lambda self: prepared.append(self.where("x.jsonl")))
    tree = {"output": "out", "model": {"path": "m"}, "data": {"name": "d", "files": "f"}}
    config = parse_config(tree | {"methods": [{"kind": "confidence"}]}, source="test")
    check_export(config, "confidence", path)
    assert prepared == [place.format(here=Path.cwd())]
