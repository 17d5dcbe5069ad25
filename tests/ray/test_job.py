"""A whole job: from source files of each format to verified output."""

import random

import pytest

from flexray.runs.run import run
from flexray.sink import OutputFolder, read_committed
from flexray.sink.records.rows import ROW_SCHEMA
from tests.ray.jobs import assert_whole, make_config, question, rows_of, write

pytestmark = pytest.mark.usefixtures("local_ray")

QUESTIONS = [question(i) for i in range(10)]
COMPARED = ("prediction", "token_ids", "finish_reason", "prompt_tokens", "correct")


@pytest.fixture(scope="module")
def job(tiny_model, tmp_path_factory):
    """A finished job over three files of three formats; returns (output folder, result, what it said)."""
    folder = tmp_path_factory.mktemp("job")
    files = [
        write(folder / "a.jsonl", QUESTIONS[:4]),
        write(folder / "b.json", QUESTIONS[4:7]),
        write(folder / "c.parquet", QUESTIONS[7:]),
    ]
    said: list[str] = []
    result = run(make_config(folder / "out", tiny_model, *files), log=said.append)
    return folder / "out", result, said


def test_rows_of_jsonl_json_and_parquet_are_answered_one_for_one(job):
    output, _, _ = job
    assert_whole(output, 10)
    rows = rows_of(output)
    assert set(rows) == {f"qa/test/q{i}" for i in range(10)}
    for source in QUESTIONS:
        row = rows[f"qa/test/{source['id']}"]
        assert row["error"] == ""
        assert 1 <= len(row["token_ids"]) <= 4
        for field in ("question", "paraphrases", "answers"):
            assert row[field] == source[field]


def test_every_table_has_the_row_schema_and_every_row_its_proof(job):
    output, _, _ = job
    for table in read_committed(OutputFolder(str(output))):
        assert table.schema.equals(ROW_SCHEMA)
    for row in rows_of(output).values():
        assert row["method"] == "attention/shared_context/restart"
        assert (row["backend_requested"], row["backend_used"], row["fallback_reason"]) == ("sdpa", "sdpa", "")
        assert row["attempts"] == 1


def test_the_accounting_of_the_manifests_sums_to_the_rows(job):
    output, result, _ = job
    counts = [manifest.accounting for manifest in result.manifests.values()]
    rows = rows_of(output).values()
    assert sum(a.rows for a in counts) == result.rows_now == 10
    assert sum(a.answered for a in counts) == 10
    assert sum(a.scored for a in counts) == 10
    assert sum(a.correct for a in counts) == sum(row["correct"] for row in rows)
    assert sum(a.prompt_tokens for a in counts) == sum(row["prompt_tokens"] for row in rows)
    assert sum(a.generated_tokens for a in counts) == sum(len(row["token_ids"]) for row in rows)


def test_no_shard_reaches_over_the_end_of_a_file(job):
    _, result, _ = job
    assert sorted(m.rows for m in result.manifests.values()) == [1, 3, 3, 3]


def test_the_job_says_what_it_does_shard_by_shard(job):
    output, _, said = job
    assert said[0] == "reading the data set qa/test, and planning its rows"
    assert said[1] == f"qa/test: 10 rows in 4 shards, 0 rows in 0 shards committed already -> {output}"
    assert said[2].startswith("starting 1 engine: each loads ")
    assert len(said) == 3 + 4
    assert "[10/10 rows" in said[-1]


def test_answers_depend_neither_on_backend_nor_shards_nor_order_of_rows(job, tiny_model, tmp_path):
    shuffled = random.Random(1).sample(QUESTIONS, len(QUESTIONS))
    data = write(tmp_path / "one.jsonl", shuffled)
    output = tmp_path / "out"
    # of the sizes that other tests compile for, too
    flex = {"backend": "flex", "strict": True, "max_num_seqs": 8, "max_num_batched_tokens": 256}
    run(make_config(output, tiny_model, data, data={"shard_rows": 1}, engine=flex), log=lambda _: None)
    assert_whole(output, 10)
    there, here = rows_of(job[0]), rows_of(output)
    assert there.keys() == here.keys()
    for row_id, row in here.items():
        assert (there[row_id]["backend_used"], row["backend_used"]) == ("sdpa", "flex")
        assert {k: row[k] for k in COMPARED} == {k: there[row_id][k] for k in COMPARED}
