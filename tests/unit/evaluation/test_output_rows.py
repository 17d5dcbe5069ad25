"""Answers as output rows: what becomes of several answers, whatever the method is called."""

import pytest

from flexray.data.question import Question, ShardSpec
from flexray.engine.generation import Generation
from flexray.evaluation import to_table
from flexray.masks.layout import SharedPrefix
from flexray.methods import METHODS, Method
from flexray.methods.single import each_alone
from flexray.pipeline.shards import AnsweredShard, answer_lists, question_table

SPEC = ShardSpec(shard_id="d-test-000000", file="plan/0000.parquet", row_group=0, num_rows=1, methods=())
QUESTION = Question(
    row_id="d/test/1",
    dataset="d",
    split="test",
    source_file="a.jsonl",
    source_row=1,
    source_id="1",
    question="q?",
    paraphrases=("q1?", "q2?"),
    answers=("Rome",),
)


def row_of(method, texts, error="", subsets=None):
    """The output row of a question that a method answered so."""
    finish = "error" if error else "eos"
    generations = tuple(
        Generation(
            token_ids=(i,),
            finish_reason=finish,
            backend_requested="flex",
            error=error,
            subset=subsets[i] if subsets else (),
        )
        for i, _ in enumerate(texts)
    )
    said = answer_lists([(generations,)], [(tuple(texts),)])
    shard = AnsweredShard(SPEC, question_table([QUESTION]), [7], said, {}, 0.0)
    (row,) = to_table(shard, (method,)).to_pylist()
    return row


@pytest.mark.parametrize("answers", ["paraphrases", "samples"])
def test_the_answers_of_a_new_method_are_where_it_says(monkeypatch, answers):
    def new(config):
        return Method(name=config.name, prefix=SharedPrefix(), scopes=each_alone, answers=answers)

    monkeypatch.setitem(METHODS, "new", new)
    row = row_of("new/temperature 2", ("Oslo", "Rome", "the Rome"))
    columns = {"paraphrases": "paraphrase_predictions", "samples": "samples"}
    for kind, column in columns.items():
        assert row[column] == (["Oslo", "Rome", "the Rome"] if kind == answers else [])
    assert (row["prediction"], row["correct"], row["token_ids"]) == ("Rome", True, [1])


def test_draws_are_recorded_with_the_paraphrases_that_they_were_made_from():
    row = row_of("draws/draws 2/size 1", ("Rome", "Oslo"), subsets=((1,), (0,)))
    assert (row["samples"], row["subsets"], row["prediction"]) == (["Rome", "Oslo"], [[1], [0]], "Rome")
    assert row_of("sampled", ("Rome", "Oslo"))["subsets"] is None


def test_a_paraphrases_confidence_is_how_often_its_answer_is_drawn():
    texts = ("Oslo", "Rome", "Bern", "Rome", "Rome", "the Rome")
    row = row_of("confidence/samples 2", texts)
    assert row["paraphrase_predictions"] == ["Oslo", "Rome"]
    assert row["confidences"] == [0.0, 1.0]
    assert row["samples"] == []


@pytest.mark.parametrize("method", METHODS)
def test_an_error_row_has_no_answers(method):
    row = row_of(method, ("",), error="a.jsonl, row 1: bad")
    assert (row["paraphrase_predictions"], row["samples"], row["correct"]) == ([], [], None)
