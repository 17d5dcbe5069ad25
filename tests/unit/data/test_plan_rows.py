"""The digest of what a question asks: the same wherever the values come from, and for no other values."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from flexray.data import PLAN_SCHEMA, to_questions
from flexray.data.plan_rows import VALUES, digest_of, read_planned, to_table
from flexray.data.question import Question, ShardSpec

_text = st.text(st.sampled_from('a1 -,\0"\\[]é'), max_size=3)
_texts = st.lists(_text, max_size=3)
_values = st.tuples(
    _text,
    _texts,
    st.none() | _texts,
    _text,
    st.integers(0, 11),
    st.none() | st.lists(st.sampled_from([0.0, -0.0, 0.1, 1.0, 1e-300]), max_size=3),
    st.none() | st.lists(_text, min_size=1, max_size=3),
)


def question(values: tuple[Any, ...]) -> Question:
    named = dict(zip(VALUES, values, strict=True))
    for name in ("paraphrases", "answers", "confidences", "candidates"):
        named[name] = None if named[name] is None else tuple(named[name])
    place = {"row_id": "d/test/1", "dataset": "d", "split": "test", "source_file": "f", "source_id": "1"}
    return Question(**place, source_row=1, **named)


@given(many=st.lists(_values, max_size=6))
def test_rows_have_the_digest_of_their_values_also_after_they_are_read_back(many: list[Any]) -> None:
    questions = [question(values) for values in many]
    table = to_table(questions)
    assert table.schema == PLAN_SCHEMA
    assert table["content"].to_pylist() == [digest_of(values) for values in many]
    assert [digest_of([row[name] for name in VALUES]) for row in table.to_pylist()] == [
        digest_of(values) for values in many
    ]
    assert to_questions(table, dataset="d", split="test") == questions


@given(one=_values, other=_values)
def test_other_values_have_another_digest(one: Any, other: Any) -> None:
    assert (digest_of(one) == digest_of(other)) == (repr(one) == repr(other))


def test_texts_do_not_run_into_each_other() -> None:
    ways: list[tuple[Any, ...]] = [
        ("q", ["a", "b"], ["c"], "", 0, None, None),
        ("q", ["a", "b", "c"], None, "", 0, None, None),
        ("q", ["a", "b", "c"], [], "", 0, None, None),
        ("q", ["a"], ["b", "c"], "", 0, None, None),
        ("q", ["a\0b"], ["c"], "", 0, None, None),
        ("q", ["ab"], ["c"], "", 0, None, None),
        ("q", ["a", "b"], ["c"], "r", 0, None, None),
        ("", ["a", "b"], ["c"], "q", 0, None, None),
        ("q", ["a", "b"], ["c"], "", 1, None, None),
        ("q", ["a", "b"], ["c"], "", 0, [], None),
        ("q", ["a", "b"], ["c"], "", 0, [0.5, 1.0], None),
        ("q", ["a", "b"], ["c"], "", 0, [0.5], None),
        ("q", [], ["a", "b", "c"], "", 0, None, None),
        ("q", [""], ["a", "b", "c"], "", 0, None, None),
        ("q", ["a", "b"], ["c"], "", 0, None, ["d"]),
        ("q", ["a", "b"], ["c", "d"], "", 0, None, None),
        ("q", ["a", "b"], ["c"], "", 0, None, ["c"]),
        ("q", ["a", "b"], [], "", 0, None, ["c"]),
        ("q", ["a", "b"], None, "", 0, None, ["c"]),
        ("q", ["a", "b"], [""], "", 0, None, ["c"]),
    ]
    assert len({digest_of(values) for values in ways}) == len(ways)


def test_the_digest_stays_what_it_is() -> None:
    """Rows of an earlier run are compared by it."""
    values = ("Who?", ["Who is it?", "Wer?"], ["Ä", "b"], "r", 1, [0.5, 1], None)
    assert digest_of(values).hex() == "f116f8dd3e58eae7f0d8ceda41407544"
    assert digest_of(values) == digest_of([tuple(v) if isinstance(v, list) else v for v in values])
    assert pa.types.is_fixed_size_binary(PLAN_SCHEMA.field("content").type)


def test_a_shard_that_was_planned_before_there_were_candidates_is_read(tmp_path: Path) -> None:
    values = ("Who?", ["Who is it?", "Wer?"], ["b"], "r", 1, [0.5, 1], None)
    table = to_table([question(values)])
    pq.write_table(table.drop_columns(["candidates"]), tmp_path / "0.parquet")
    spec = ShardSpec(shard_id="0", file=str(tmp_path / "0.parquet"), row_group=0, num_rows=1, methods=("m",))
    assert read_planned(spec).equals(table)
