"""The table of answers: whose they are, which say the same, and which questions a page has no room for."""

from __future__ import annotations

import pytest

from flexray.evaluation.answer_metrics import contains
from flexray.report.page import answers, write_page
from flexray.report.page.answers import AnswerTable, Disagreement
from tests.unit.report.page_reader import data_of, read_page
from tests.unit.sink.builders import ERROR, Shard, finished, row, table

SAID = {  # of two methods, by question: prediction and whether it is right; None: an error
    "same": (("The Berlin.", True), ("berlin", True)),
    "one is right": (("Berlin", True), ("Rome", False)),
    "other is right": (("Rome", False), ("Berlin", True)),
    "both are wrong": (("Rome", False), ("Paris", False)),
    "one fails": (None, ("Berlin", True)),
}


def rows_of(place: int, method: str) -> list[dict]:
    made = []
    for row_id, said in SAID.items():
        one = said[place]
        changes = ERROR if one is None else {"prediction": one[0], "correct": one[1]}
        made.append(row(row_id, f"s{place}", method=method, **changes))
    return made


@pytest.fixture
def both():
    """A method, and one that came later, in a shard of its own."""
    made = AnswerTable(("m", "n"), None)
    for place, method in ((1, "n"), (0, "m")):
        made.add(table(Shard(f"s{place}", ()), rows=rows_of(place, method)))
    return made


def test_a_question_has_the_answers_of_all_methods_in_their_order(both):
    assert both.rows == 10
    questions = both.tree()["questions"]
    assert [question["row_id"] for question in questions] == list(SAID)
    said = [question["said"] for question in questions]
    assert [[answer["method"] for answer in answers] for answers in said] == [["m", "n"]] * 5
    same, one_right, *_, failed = said
    assert len({answer["normalized"] for answer in same}) == 1
    assert [(a["right"], a["prediction"]) for a in one_right] == [(True, "Berlin"), (False, "Rome")]
    assert [answer["right"] for answer in failed] == [None, True]
    assert (failed[0]["error"], failed[0]["shard_id"]) == ("d.jsonl, row 1: bad", "s0")


def test_methods_are_compared_where_both_answered(both):
    (alone, one), (other, _) = both.disagreements()
    assert one == other == Disagreement(answered=4, differ=3, scored=3, right=1)
    assert alone.differ == 0


def test_right_is_what_the_headline_metric_says():
    made = AnswerTable(("m",), contains)
    said = [
        row("a", "s", prediction="It is Berlin", correct=False),
        row("b", "s", answers=None, correct=None),
    ]
    made.add(table(Shard("s", ()), rows=said))
    questions = made.tree()["questions"]
    assert [question["said"][0]["right"] for question in questions] == [True, None]
    assert [question["answers"] for question in questions] == [["Berlin"], None]


def test_of_more_questions_than_a_page_has_room_for_the_first_and_some_errors_are_kept(
    folder, monkeypatch, tmp_path
):
    monkeypatch.setattr(answers, "MAX_QUESTIONS", 3)
    monkeypatch.setattr(answers, "MAX_ERRORS", 1)
    made = AnswerTable(("m",), None)
    failed = [row(f"e{i}", "s", **ERROR) for i in range(3)]
    made.add(table(Shard("s", ()), rows=[row(f"q{i}", "s") for i in range(5)] + failed))
    assert list(made.questions) == ["q0", "q1", "q2", "e0"]
    finished(folder)
    write_page(folder.url, tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert len(data_of(page)["questions"]) == 3
    assert "3 of 12 rows are here" in page.by_id("answers").words
