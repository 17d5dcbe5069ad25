"""A shard comes out of its row as it went in, however the rows are cut and merged."""

import dataclasses

import pyarrow as pa

from flexray.data.plan_rows import to_questions
from flexray.data.plan_rows import to_table as plan_table
from flexray.data.question import Question, ShardSpec
from flexray.engine.generation import Generation
from flexray.errors import DataError
from flexray.pipeline import columns
from flexray.pipeline.failures import Failure
from flexray.pipeline.shards import (
    ANSWER_FIELDS,
    QUESTION_SCHEMA,
    AnsweredShard,
    PreparedShard,
    answer_lists,
    question_table,
)
from flexray.prompts.prompt import Prompt


def make(row_id, **fields):
    given = {"dataset": "d", "split": "test", "source_file": "a.jsonl", "source_row": 1, "source_id": "1"}
    return Question(row_id=row_id, question="q?", **given | fields)


QUESTIONS = [
    make("d/test/1", paraphrases=("q1?", "q2?"), answers=("Rome",), confidences=(0.1, 1.0), num_manual=1),
    make("d/test/日本", paraphrases=("日本?\0 \n🎉", ""), answers=(), relation="é", source_row=2**40),
    make("d/test/3", error="a.jsonl, row 3: bad"),
    make("d/test/4", paraphrases=("q",), answers=None, confidences=None, candidates=("a", "b")),
]
PROMPTS = [
    Prompt((1, 2), ((5, 6), (5, 7)), (3,), 1, (0.1, 1.0), "d/test/1", 1),
    Prompt((1, 2), ((5,), (50_000, 2**31 - 1)), (3,), 0, None, "d/test/日本"),
    None,
    Prompt((1, 2), ((9,),), (3,), 0, None, "d/test/4", candidates=((4,), (5, 6))),
]


def generation(*token_ids, **fields):
    return Generation(token_ids=token_ids, finish_reason="eos", backend_requested="flex", **fields)


FAILED = Generation(finish_reason="error", backend_requested="flex", error="bad: é", attempts=0)
ANSWERS = [  # by a method with one answer, and by one with an answer for each paraphrase
    ((generation(1, 2, backend_used="flex"),), (generation(1), generation())),
    ((generation(2, fallback_reason="flex: X: y"),), (generation(3), generation(4))),
    ((FAILED,), (FAILED,)),
    ((generation(7, candidate_scores=(-1.0, -0.5)),), (generation(8),)),
]
TEXTS = [
    tuple(tuple(f"é{g.token_ids}" if g.token_ids else "" for g in method) for method in q) for q in ANSWERS
]
FAILURE = Failure.of(DataError("gone"))


def spec_of(number, rows):
    return ShardSpec(
        shard_id=f"d-test-{number:06}",
        file="s3://b/ü/plan.parquet",
        row_group=number,
        num_rows=rows,
        methods=("attention", "per_prompt"),
    )


def prepared(number, rows):
    """A shard of some of the questions."""
    questions = question_table([QUESTIONS[row] for row in rows])
    prompts = [PROMPTS[row] for row in rows]
    if number == 3:  # its few-shots have paraphrases
        prompts = [
            dataclasses.replace(p, context=(1, 2, 3, 4), few_shots=((0, 1, 3),)) if p else None
            for p in prompts
        ]
    return PreparedShard(spec_of(number, len(rows)), questions, prompts)


def answered(number, rows):
    shard = prepared(number, rows)
    answers = answer_lists([ANSWERS[row] for row in rows], [TEXTS[row] for row in rows])
    stats = {"generated_tokens": 3, "mask_cache": {"hits": 1}, "device": "é", "seconds": 0.125}
    return AnsweredShard(shard.spec, shard.questions, shard.prompt_tokens, answers, stats, 1 / 3)


SHARDS = [[0, 1, 2, 3], [2], [], [3, 0], [1]]


def through(rows, read):
    """What is read of rows that were merged into one block, cut into others, and read several at once."""
    whole = pa.concat_tables(rows)
    blocks = [whole.slice(0, 1), whole.slice(1, 3), whole.slice(4).combine_chunks()]
    return [shard for block in blocks for shard in read(block)]


def test_planned_shards():
    specs = [spec_of(number, 512) for number in range(3)]
    assert columns.read_specs(pa.Table.from_pylist(list(map(columns.spec_row, specs)))) == specs


def test_prepared_shards_and_the_failure_in_the_place_of_one():
    shards = [prepared(number, rows) for number, rows in enumerate(SHARDS)]
    rows = [columns.prepared_row(shard) for shard in shards]
    assert {row.schema for row in rows} == {columns.PREPARED_SCHEMA}
    rows.insert(2, columns.failure_row(FAILURE, columns.PREPARED_SCHEMA))
    assert through(rows, columns.read_prepared) == [*shards[:2], FAILURE, *shards[2:]]


def test_answered_shards_and_the_failure_in_the_place_of_one():
    shards = [answered(number, rows) for number, rows in enumerate(SHARDS)]
    rows = [columns.answered_row(shard) for shard in shards]
    assert {row.schema for row in rows} == {columns.ANSWERED_SCHEMA}
    rows.insert(2, columns.failure_row(FAILURE, columns.ANSWERED_SCHEMA))
    assert through(rows, columns.read_answered) == [*shards[:2], FAILURE, *shards[2:]]


def test_committed_shards_and_the_failure_in_the_place_of_one():
    fields = [
        {"shard_id": f"s{n}", "rows": n, "errors": 0, "fallbacks": 1, "empty": 0, "seconds": 0.25}
        for n in range(5)
    ]
    rows = [columns.committed_row(shard) for shard in fields]
    rows.insert(2, columns.failure_row(FAILURE, columns.COMMITTED_SCHEMA))
    assert through(rows, columns.read_committed) == [*fields[:2], FAILURE, *fields[2:]]


def test_answers_are_method_by_method_those_to_each_question():
    rows = answer_lists(ANSWERS, TEXTS).to_pylist()
    expected = [
        [
            {name: _listed(value) for name, value in dataclasses.asdict(one).items()} | {"text": text}
            for one, text in zip(ANSWERS[question][method], TEXTS[question][method], strict=True)
        ]
        for method in range(2)
        for question in range(4)
    ]
    assert rows == expected
    assert answer_lists([], []).to_pylist() == []


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


def test_the_columns_are_the_fields_of_the_classes():
    assert {field.name for field in ANSWER_FIELDS} == {f.name for f in dataclasses.fields(Generation)}
    assert set(QUESTION_SCHEMA.names) == {f.name for f in dataclasses.fields(Question)}


def test_questions_are_those_of_the_plan():
    plan = plan_table(QUESTIONS)
    again = question_table(to_questions(plan, dataset="d", split="test"))
    assert again.drop_columns(["dataset", "split"]).equals(plan.drop_columns(["content"]))
