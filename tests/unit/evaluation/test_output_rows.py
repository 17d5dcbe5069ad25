"""Answers as output rows: what becomes of several answers, whatever the method is called."""

import pytest

from flexray.config import MethodConfig
from flexray.data.question import Question, ShardSpec
from flexray.engine.generation import Generation, Logprobs
from flexray.errors import ConfigError
from flexray.evaluation import to_table
from flexray.evaluation.output_rows import check_match
from flexray.masks.layout import SharedPrefix
from flexray.methods import METHODS, Method
from flexray.methods.single import each_alone
from flexray.pipeline.shards import AnsweredShard, answer_lists, question_table
from flexray.sink.records.rows import LOGPROBS

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


def row_of(method, texts, error="", subsets=None, logprobs=None):
    """The output row of a question that a method answered so."""
    finish = "error" if error else "eos"
    generations = tuple(
        Generation(
            token_ids=(i,),
            finish_reason=finish,
            backend_requested="flex",
            error=error,
            subset=subsets[i] if subsets else (),
            logprobs=Logprobs((logprobs[i],), ((),), ((),)) if logprobs else None,
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
    assert row["samples"] == ["Rome", "Bern", "Rome", "the Rome"]  # so that it can be computed again


def test_what_is_drawn_can_be_compared_by_any_metric():
    texts = ("New York", "York", "New York City", "Rome", "Bern", "Rome")
    row = row_of("confidence/samples 2/match f1", texts)
    assert row["confidences"] == pytest.approx([(2 / 3 + 4 / 5) / 2, 0.5])
    assert row_of("confidence/samples 2/match lemma_match", texts)["confidences"] == [0.5, 0.5]
    assert MethodConfig(kind="confidence", match="f1").name == "confidence/match f1"
    with pytest.raises(ConfigError, match=r"metric 'same' is unknown. Known: exact_match, f1, contains"):
        check_match([MethodConfig(kind="confidence", match="same")])


def test_the_log_probabilities_are_those_of_the_answer_that_counts():
    def generation(token, *logprobs):
        best = tuple(((token, 7), (value, value - 1)) for value in logprobs)
        found = Logprobs(logprobs, tuple(ids for ids, _ in best), tuple(top for _, top in best))
        return Generation(
            token_ids=(token,) * 2, finish_reason="eos", backend_requested="flex", logprobs=found
        )

    answers = (generation(1, -1.0, -2.0), *[generation(2, -0.5, -0.25)] * 2)
    said = answer_lists([(answers,)], [(("Oslo", "Rome", "Rome"),)])
    shard = AnsweredShard(SPEC, question_table([QUESTION]), [7], said, {}, 0.0)
    (row,) = to_table(shard, ("per_prompt",)).to_pylist()
    assert (row["token_ids"], row["logprobs"]) == ([2, 2], [-0.5, -0.25])
    assert (row["logprob_sum"], row["logprob_mean"]) == (-0.75, -0.375)
    assert row["top_token_ids"] == [[2, 7], [2, 7]]
    assert row["top_logprobs"] == [[-0.5, -1.5], [-0.25, -1.25]]
    assert {row_of("origin", ("Rome",))[name] for name in LOGPROBS} == {None}  # not asked for


@pytest.mark.parametrize("method", METHODS)
def test_an_error_row_has_no_answers(method):
    row = row_of(method, ("",), error="a.jsonl, row 1: bad")
    assert (row["paraphrase_predictions"], row["samples"], row["correct"]) == ([], [], None)


def test_a_tie_of_votes_goes_to_the_first_answer_or_to_the_more_likely_one():
    said = ("Rome", "Oslo", "rome", "oslo", "Bern")
    logprobs = (-1.0, -0.5, -1.0, -1.0, -0.1)
    assert row_of("vote", said, logprobs=logprobs)["prediction"] == "Rome"
    row = row_of("vote/ties logprob", said, logprobs=logprobs)
    assert (row["prediction"], row["token_ids"], row["logprob_sum"]) == ("Oslo", [1], -0.5)
    assert row_of("vote/ties logprob", ("",), error="bad")["prediction"] == ""
