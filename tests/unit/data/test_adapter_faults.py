"""What is wrong with a record or a template of a published data set is the error of its rows."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexray.config import DataConfig
from flexray.data import scan
from flexray.data.question import Question
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, write
from tests.unit.data.published import (
    HUB_MYRIAD,
    HUB_WEBQA,
    TEMPLATES,
    TRIVIAQA,
    WEBQA,
    fact,
    myriad_fact,
    myriad_facts,
    pararel,
)


def of_kind(folder: Path, kind: str, record: Any) -> DataConfig:
    """A good record and then the given one, as a data set of the kind."""
    if kind == "pararel":
        return pararel(folder, {"P1": ["[X] is [Y]."]}, {"P1": [fact(0), record]})
    if kind == "facts":
        return myriad_facts(folder, TEMPLATES, [myriad_fact(0), record])
    first = {"webqa": WEBQA, "hub": HUB_WEBQA, "triviaqa": TRIVIAQA, "myriadlama": HUB_MYRIAD}[kind][0]
    path = write(folder / "in.jsonl", [first, record])
    return data_config(path, kind="webqa" if kind == "hub" else kind)


GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "webqa": lambda: WEBQA[1],
    "hub": lambda: HUB_WEBQA[1],
    "triviaqa": lambda: TRIVIAQA[1],
    "pararel": lambda: fact(1),
    "facts": lambda: myriad_fact(1),
    "myriadlama": lambda: HUB_MYRIAD[3],
}


@pytest.mark.parametrize(
    ("kind", "field", "value", "problem"),
    [
        ("webqa", "qId", None, "an id must be"),
        ("webqa", "qText", 5, "a string is needed, not a number"),
        ("webqa", "answers", "[Paris]", "looks like a list, but is not a JSON list"),
        ("webqa", "answers", [], "Give the row an answer."),
        ("hub", "question", ["x"], "a string is needed, not a list"),
        ("hub", "answers", None, "a list of strings is needed, not null"),
        ("triviaqa", "question_id", 1.5, "an id must be"),
        ("triviaqa", "answer", "Paris", "an object is needed, not a string"),
        ("triviaqa", "answer", {"value": 3}, "a string is needed, not a number"),
        ("triviaqa", "answer", {"value": "a", "aliases": "b"}, "a list of strings is needed, not a string"),
        ("triviaqa", "answer", {"value": "a", "aliases": [None]}, "element 2 of 2 is not a string, but null"),
        ("pararel", "sub_label", None, "a string is needed, not null"),
        ("pararel", "sub_label", " ", "the text is empty"),
        ("pararel", "obj_label", ["x"], "a string is needed, not a list"),
        ("pararel", "obj_label", "\ud800", "surrogate"),
        ("pararel", "uuid", ["x"], "an id must be"),
        ("facts", "rel_uri", 3, "a string is needed, not a number"),
        ("facts", "rel_uri", "P9", "no template for it"),
        ("facts", "sub_ent", {}, "a string is needed, not an object"),
        ("facts", "obj_exps", [3], "element 1 of 1 is not a string, but a number"),
        ("facts", "obj_exps", 3, "a list of strings is needed, not a number"),
        ("facts", "obj_exps", [], "the fact has no object"),
        ("facts", "uuid", None, "an id must be"),
        ("myriadlama", "template", 3, "the template must be a string"),
        ("myriadlama", "template", "[X] only", "[Y] 0 times"),
        ("myriadlama", "is_manual", "yes", "is_manual must be true or false, not a string"),
        ("myriadlama", "is_manual", [], "is_manual must be true or false, not a list"),
        ("myriadlama", "rel_uri", None, "a string is needed, not null"),
        ("myriadlama", "uuid", True, "an id must be"),
    ],
)
def test_a_bad_value_is_the_rows_error_and_names_file_row_and_field(
    tmp_path: Path, kind: str, field: str, value: Any, problem: str
) -> None:
    good, bad = read_all(of_kind(tmp_path, kind, GOOD[kind]() | {field: value}))
    assert good.error == ""
    assert problem in bad.error
    assert ".jsonl, row 2, field '" in bad.error
    assert field in bad.error or field.startswith("obj_")
    assert "data.fields" not in bad.error
    assert bad.error.count(", row 2, ") == 1


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_a_record_holds_it_is_one_question(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(GOOD)))
    record: Any = dict(GOOD[kind]())
    for field in sorted(record):
        if data.draw(st.booleans(), label=field):
            record[field] = data.draw(_json)
    if kind == "triviaqa" and data.draw(st.booleans()):
        record["answer"] = data.draw(st.dictionaries(st.sampled_from(["value", "aliases"]), _json))
    with tempfile.TemporaryDirectory() as folder:
        questions = read_all(of_kind(Path(folder), kind, record))
    assert_sound(questions)
    assert questions[0].error == "" or kind == "myriadlama"  # where the rows may be of one fact
    json.dumps([q.error for q in questions]).encode()


@settings(max_examples=60, deadline=None)
@given(template=_json, relation=st.just("P1") | _json, manual=_json, named=st.booleans())
def test_whatever_a_template_holds_no_row_is_lost(
    template: Any, relation: Any, manual: Any, named: bool
) -> None:
    bad = {"rel_uri": relation, "template": template, "type" if named else "is_manual": manual}
    with tempfile.TemporaryDirectory() as folder:
        config = myriad_facts(Path(folder), [*TEMPLATES, bad], [myriad_fact(1), myriad_fact(2)])
        if not (isinstance(relation, str) and relation.strip()):
            with pytest.raises(DataError, match=r"templates\.jsonl, row 13, field 'rel_uri'"):
                scan(config)
            return
        questions = read_all(config)
    assert_sound(questions)
    assert len(questions) == 2


def assert_sound(questions: list[Question]) -> None:
    assert len({q.row_id for q in questions}) == len(questions) > 0
    for q in questions:
        assert q.error or (q.question.strip() and q.paraphrases and q.answers)
        assert q.num_manual <= len(q.paraphrases)
