"""Several shards in one call of the engine: the same rows, counters that add up, row ranges noted before."""

import dataclasses
import os
import platform
import subprocess
import sys

import pyarrow as pa
import pytest

from flexray.pipeline.answer import Answerer, untried
from flexray.pipeline.crash_tracker import Attempt
from flexray.pipeline.prepare import prepare_shard
from flexray.sink import OutputFolder, specs_of
from tests.ray.jobs import make_config, question, write
from tests.runs import planned


@pytest.fixture(scope="module")
def shards(tiny_model, tmp_path_factory):
    """(configuration, three prepared shards); one row is faulty."""
    folder = tmp_path_factory.mktemp("together")
    rows = [question(i) for i in range(7)]
    rows[4] = question(4, question="")
    data = write(folder / "questions.jsonl", rows)
    config = make_config(folder / "out", tiny_model, data)
    specs = specs_of(OutputFolder(config.output), planned(config).record)
    return config, [prepare_shard(spec, config) for spec in specs.values()]


def rows_of(answered):
    return [(answer["error"], answer["token_ids"]) for (answer,) in answered.answers.to_pylist()]


def answer_together(answerer, *arguments):
    return [answerer.finish(result) for result in answerer.generate(*arguments)]


@pytest.fixture(scope="module")
def alone(shards):
    config, prepared = shards
    answerer = Answerer(config)
    return [answerer.answer(shard) for shard in prepared]


def test_shards_answered_together_have_the_rows_that_each_has_alone(shards, alone):
    config, prepared = shards
    together = answer_together(Answerer(config), [(shard, untried(shard)) for shard in prepared])
    assert [a.spec.shard_id for a in together] == [a.spec.shard_id for a in alone]
    for one, other in zip(together, alone, strict=True):
        assert rows_of(one) == rows_of(other)
        assert one.answers.equals(other.answers)
        assert (one.prompt_tokens, one.questions) == (other.prompt_tokens, other.questions)


def test_the_counters_of_a_call_stand_once_and_every_shard_says_where(shards, alone):
    config, prepared = shards
    together = answer_together(Answerer(config), [(shard, untried(shard)) for shard in prepared])
    first, *others = [a.engine_stats for a in together]
    assert [stats["counted_in"] for stats in (first, *others)] == ["", *[prepared[0].spec.shard_id] * 2]
    for stats in others:
        assert stats["generated_tokens"] == stats["prefill_tokens"] == stats["attention_calls"]["sdpa"] == 0
        assert stats["mask_cache"] == {"hits": 0, "misses": 0}
    for counter in ("generated_tokens", "prefill_tokens"):
        assert first[counter] == sum(a.engine_stats[counter] for a in alone) > 0
    assert first["attention_calls"]["sdpa"] > 0
    assert all(a.seconds > 0 for a in together)
    assert {stats["process"] for stats in (first, *others)} == {f"{platform.node()}:{os.getpid()}"}


def test_texts_are_made_without_the_engine_which_may_be_at_work_for_other_shards(shards, alone):
    config, prepared = shards
    answerer = Answerer(config)
    generated = answerer.generate([(shard, untried(shard)) for shard in prepared])
    rounding = answerer._engine.rounding
    del vars(answerer)["_engine"]
    answered = [answerer.finish(result) for result in generated]
    assert not answerer.is_loaded
    assert [rows_of(a) for a in answered] == [rows_of(a) for a in alone]
    assert all(a.engine_stats["rounding"] == rounding for a in answered)


def test_a_shard_that_crashed_a_process_is_answered_by_itself_in_row_ranges(shards, alone):
    config, prepared = shards
    ids = [shard.spec.shard_id for shard in prepared]
    crashed = Attempt([(0, 1), (2, 3)], frozenset({1}), 3)
    notes = []
    attempts = [untried(prepared[0]), crashed, untried(prepared[2])]
    pairs = list(zip(prepared, attempts, strict=True))
    together = answer_together(Answerer(config), pairs, lambda ranges: notes.append(dict(ranges)))
    whole = {ids[0]: (0, 3), ids[2]: (0, 1)}
    assert notes == [whole, {}, {ids[1]: (0, 1)}, {}, {ids[1]: (2, 3)}, {}]
    assert [rows_of(a) for a in (together[0], together[2])] == [rows_of(a) for a in (alone[0], alone[2])]
    assert rows_of(together[1])[0] == rows_of(alone[1])[0]
    assert "3 crashes in its shard" not in rows_of(together[1])[1][0]  # it was faulty before
    assert together[1].engine_stats["counted_in"] == ""
    assert together[1].engine_stats["generated_tokens"] > 0


def test_for_faulty_rows_only_no_model_is_loaded(shards):
    config, prepared = shards
    shard = prepared[0]
    bad = dataclasses.replace(
        shard,
        questions=shard.questions.set_column(
            shard.questions.column_names.index("error"),
            shard.questions.schema.field("error"),
            pa.repeat("bad", len(shard.questions)),
        ),
        prompts=[None] * len(shard.questions),
    )
    answerer = Answerer(config)
    answered = answerer.answer(bad)
    assert not answerer.is_loaded
    assert [error for error, _ in rows_of(answered)] == ["bad"] * 3
    assert answered.engine_stats["generated_tokens"] == 0


def test_the_answerer_is_imported_without_ray():
    code = "import sys, flexray.pipeline.answer, flexray.pipeline.columns; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
