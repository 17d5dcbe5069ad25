"""Data sets whose paraphrases are made of templates: ParaRel and MyriadLAMA."""

from pathlib import Path
from typing import Any

import pytest

from flexray.data import scan
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, write
from tests.unit.data.published import (
    FORMATS,
    HUB_MYRIAD,
    PATTERNS,
    TEMPLATES,
    fact,
    myriad_fact,
    myriad_facts,
    pararel,
)


def test_pararel_completions_end_before_the_answer(tmp_path: Path) -> None:
    config = pararel(tmp_path, {"P19": PATTERNS}, {"P19": [fact(1), fact(2)]})
    question, _ = read_all(config)
    assert question.paraphrases == ("Sub1 was born in", "Sub1 is from")
    assert question.question == "Sub1 was born in"
    assert (question.relation, question.source_id, question.answers) == ("P19", "u1", ("Obj1",))
    assert (question.num_manual, question.error) == (2, "")


def test_pararel_masks_are_made_of_all_patterns(tmp_path: Path) -> None:
    config = pararel(tmp_path, {"P19": PATTERNS}, {"P19": [fact(1)]}, pararel_style="mask")
    [question] = read_all(config)
    assert question.paraphrases[2:] == ("[MASK] is the home of Sub1.", "Sub1, a [MASK]-born person.")
    assert question.num_manual == 4


def test_a_subject_that_looks_like_a_slot_is_text(tmp_path: Path) -> None:
    config = pararel(tmp_path, {"P1": ["[X] is [Y]."]}, {"P1": [fact(1, sub_label="[Y] and [X]")]})
    assert read_all(config)[0].paraphrases == ("[Y] and [X] is",)


def test_a_completion_that_two_patterns_give_is_asked_once(tmp_path: Path) -> None:
    config = pararel(tmp_path, {"P1": ["[X] is [Y].", "[X] is [Y]"]}, {"P1": [fact(1)]})
    assert read_all(config)[0].paraphrases == ("Sub1 is",)


def test_a_pararel_fact_without_an_id_gets_one_and_a_repeated_one_is_an_error(tmp_path: Path) -> None:
    facts = [fact(1, uuid=...), fact(2, uuid=None), fact(3, uuid=""), fact(4), fact(5, uuid="u4")]
    config = pararel(tmp_path, {"P1": ["[X] is [Y]."]}, {"P1": facts})
    questions = read_all(config)
    assert len({q.row_id for q in questions}) == 5
    assert [bool(q.error) for q in questions] == [False, False, False, False, True]
    assert all(q.source_id.startswith("P1-") for q in questions[:3])
    assert "P1.jsonl, row 5, field 'uuid': has the same id as" in questions[4].error
    again = pararel(tmp_path / "again", {"P1": ["[X] was [Y]."]}, {"P1": facts[::-1]})
    assert {q.row_id for q in read_all(again)} >= {q.row_id for q in questions[:3]}


def test_a_faulty_pattern_is_the_error_of_the_facts_of_its_relation_only(tmp_path: Path) -> None:
    patterns: dict[str, list[Any]] = {"P1": ["[X] is [Y].", "no slots"], "P2": ["[X] is [Y]."], "P3": [7]}
    facts = {f"P{r}": [fact(r)] for r in (1, 2, 3, 4)}
    one, two, three, four = read_all(pararel(tmp_path, patterns, facts))
    assert two.error == ""
    assert "facts/P1.jsonl, row 1, field 'pattern of " in one.error
    assert "patterns/P1.jsonl, row 2'" in one.error
    assert "'no slots'" in one.error
    assert "a string is needed, not a number" in three.error
    assert "no template of style completion for it in" in four.error
    assert (one.source_id, one.answers) == ("u1", ("Obj1",))


@pytest.mark.parametrize("extension", FORMATS)
def test_myriadlama_gathers_the_rows_of_a_fact(tmp_path: Path, extension: str) -> None:
    write(tmp_path / f"a.{extension}", HUB_MYRIAD[:5])  # m0's rows are in both files
    write(tmp_path / f"b.{extension}", HUB_MYRIAD[5:])
    config = data_config(tmp_path / "*", kind="myriadlama")
    questions = read_all(config)
    assert [q.source_id for q in questions] == ["m0", "m1", "m2", "m3"]
    assert [(Path(q.source_file).stem, q.source_row) for q in questions] == [
        ("a", 1),
        ("a", 3),
        ("a", 5),
        ("b", 2),
    ]
    first = questions[0]
    assert first.paraphrases[:3] == tuple(f"manual {n}: Sub0 is [MASK]." for n in range(3))
    assert first.paraphrases[3:] == tuple(f"auto {n}: Sub0 is [MASK]." for n in range(3))
    assert (first.num_manual, first.question, first.relation) == (3, first.paraphrases[0], "P0")
    assert first.answers == ("Obj0", "alias")
    assert not any(q.error for q in questions)


def test_myriadlama_facts_take_the_templates_of_their_relation(tmp_path: Path) -> None:
    facts = [
        myriad_fact(1),
        myriad_fact(2, sub_ent=..., sub_exps=["S", "T"], obj_ent="O", obj_exps=[["O", "P"]]),
    ]
    one, two = read_all(myriad_facts(tmp_path, TEMPLATES, facts))
    assert (len(one.paraphrases), one.num_manual, one.error) == (12, 6, "")
    assert one.paraphrases[0] == "manual 0: Sub1 is [MASK]."
    assert (two.question, two.answers, two.error) == ("manual 0: S is [MASK].", ("O", "P"), "")


def test_templates_are_the_first_or_drawn_for_each_row_by_the_seed(tmp_path: Path) -> None:
    facts = [myriad_fact(i) for i in range(20)]

    def drawn(**keys: Any) -> list[tuple[str, ...]]:
        questions = read_all(myriad_facts(tmp_path, TEMPLATES, facts, max_manual=2, max_automatic=3, **keys))
        assert {(len(q.paraphrases), q.num_manual) for q in questions} == {(5, 2)}
        assert all(p.startswith("manual") == (i < 2) for q in questions for i, p in enumerate(q.paraphrases))
        return [tuple(p.partition(":")[0] for p in q.paraphrases) for q in questions]

    assert set(drawn()) == {("manual 0", "manual 1", "auto 0", "auto 1", "auto 2")}
    assert len(set(drawn(paraphrase_seed=1))) > 10
    assert drawn(paraphrase_seed=1) == drawn(paraphrase_seed=1) != drawn(paraphrase_seed=2)
    questions = read_all(myriad_facts(tmp_path, TEMPLATES, facts, max_automatic=0))
    assert {len(q.paraphrases) for q in questions} == {6}


def test_a_relation_left_without_templates_is_an_error(tmp_path: Path) -> None:
    automatic = [t | {"type": "automatic"} for t in TEMPLATES[:1]]
    [question] = read_all(myriad_facts(tmp_path, automatic, [myriad_fact(1)], max_automatic=0))
    assert "it has no template left" in question.error


def test_a_template_without_a_relation_ends_the_scan_by_file_and_row(tmp_path: Path) -> None:
    config = myriad_facts(tmp_path, [*TEMPLATES, {"template": "[X] [Y]", "type": "auto"}], [myriad_fact(1)])
    with pytest.raises(DataError, match=r"templates\.jsonl, row 13, field 'rel_uri': a string is needed"):
        scan(config)


def test_a_side_file_that_cannot_be_used_is_named_with_its_key(tmp_path: Path) -> None:
    config = myriad_facts(tmp_path, TEMPLATES, [myriad_fact(1)])
    path = tmp_path / "templates.jsonl"
    path.write_text('{"rel": 1}\n')
    with pytest.raises(DataError, match=r"kind myriadlama.*found: 'rel'\. Correct data\.template_files"):
        scan(config)
    path.write_text("{\n")
    with pytest.raises(DataError, match=r"templates\.jsonl, row 1, field '\(record\)'"):
        scan(config)
    path.unlink()
    with pytest.raises(DataError, match=r"no such file\. Correct data\.template_files"):
        scan(config)
