"""Few-shots drawn from other rows than those that are asked."""

from pathlib import Path
from typing import Any

import pytest

from flexray.config import FewShot, RunConfig, parse_config
from flexray.data import refuse_asked_few_shots, scan, with_few_shots
from flexray.data.few_shots import choose_few_shots
from flexray.errors import ConfigError, DataError
from tests.unit.data.conftest import record, write


def train(i: int, **changes: Any) -> dict[str, Any]:
    good = {"question": f"Train {i}?", "answers": [f"A{i}", f"B{i}"]} | changes
    return {k: v for k, v in good.items() if v is not ...}


def config(tmp_path: Path, rows: list[Any], *, asked: list[Any] | None = None, **keys: Any) -> RunConfig:
    data = keys.pop("data", {})
    asked_file = write(tmp_path / "test.jsonl", asked or [record(1), record(2)])
    drawn = {"files": str(write(tmp_path / "train.jsonl", rows)), "count": 3} | keys
    tree = {
        "output": "out",
        "model": {"path": "m"},
        "data": {"name": "d", "files": str(asked_file)} | data,
        "prompt": {"few_shot_data": drawn},
    }
    return parse_config(tree, source="test")


def choose(config: RunConfig) -> tuple[FewShot, ...]:
    return choose_few_shots(config, [scan(config.data)])


ROWS = [train(i) for i in range(30)]


def test_the_draw_is_by_the_seed_alone(tmp_path: Path) -> None:
    drawn = choose(config(tmp_path, ROWS))
    assert len(set(drawn)) == 3
    assert {FewShot(question=f"Train {i}?", answer=f"A{i}") for i in range(30)} > set(drawn)
    assert choose(config(tmp_path, ROWS[::-1])) == drawn
    assert choose(config(tmp_path, ROWS, asked=[record(7)])) == drawn
    assert choose(config(tmp_path, ROWS, count=2)) == drawn[:2]
    assert choose(config(tmp_path, ROWS, seed=1)) != drawn


def test_what_is_asked_in_any_wording_is_never_shown(tmp_path: Path) -> None:
    asked = [record(0, question=" train   0? "), record(1), record(2, paraphrases=["x", "TRAIN 1?"])]
    rows = [*(train(i, ways=["a way"]) for i in range(5)), train(5, ways=["x", "what is 1?"])]
    drawn = choose(config(tmp_path, rows, asked=asked, fields={"paraphrases": "ways"}))
    assert {shot.question for shot in drawn} == {"Train 2?", "Train 3?", "Train 4?"}


def test_joined_paraphrases_count_as_asked(tmp_path: Path) -> None:
    joined = write(tmp_path / "more.jsonl", [{"id": "q1", "paraphrases": ["train 0?"]}])
    with pytest.raises(ConfigError, match=r"of 3 usable questions .* only 2 are not asked"):
        choose(config(tmp_path, ROWS[:3], data={"paraphrase_files": str(joined)}))


def test_faulty_rows_and_rows_without_an_answer_are_not_drawn(tmp_path: Path) -> None:
    bad = [train(0, answers=[]), train(1, answers=...), train(2, question=" "), train(3, answers=[""]), 7]
    rows = [*bad, train(4), train(4, answers=["other"]), train(5), train(6)]
    drawn = choose(config(tmp_path, rows))
    assert sorted((s.question, s.answer) for s in drawn) == [(f"Train {i}?", f"A{i}") for i in (4, 5, 6)]


def test_too_few_rows_are_told_with_their_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"3 few-shots are wanted, but of 2 usable .*train\.jsonl"):
        choose(config(tmp_path, ROWS[:2]))


def test_the_file_that_is_asked_is_refused_unless_a_part_of_it_is_asked(tmp_path: Path) -> None:
    rows = [record(i) for i in range(9)]
    files = str(tmp_path / "test.jsonl")
    with pytest.raises(ConfigError, match=r"test\.jsonl: is also in data\.files"):
        choose(config(tmp_path, [], asked=rows, files=files))
    drawn = choose(config(tmp_path, [], asked=rows, files=files, data={"limit": 6}))
    assert {shot.question for shot in drawn} == {"What is 6?", "What is 7?", "What is 8?"}


def test_a_fault_of_the_file_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompt\.few_shot_data .*no record has the field 'q'"):
        choose(config(tmp_path, ROWS, fields={"question": "q"}))
    with pytest.raises(DataError, match=r"prompt\.few_shot_data .*none\.jsonl"):
        choose(config(tmp_path, ROWS, files=str(tmp_path / "none.jsonl")))


def test_kinds_are_drawn_from_too(tmp_path: Path) -> None:
    rows = [{"qId": f"w{i}", "qText": f"Q{i}?", "answers": [f"A{i}"]} for i in range(3)]
    drawn = choose(config(tmp_path, rows, kind="webqa"))
    assert {shot.question for shot in drawn} == {"Q0?", "Q1?", "Q2?"}
    write(tmp_path / "p" / "patterns" / "P1.jsonl", [{"pattern": "[X] is in [Y]."}])
    write(tmp_path / "p" / "facts" / "P1.jsonl", [{"sub_label": "S", "obj_label": "O", "uuid": "u"}])
    drawn = choose(config(tmp_path, [], kind="pararel", files=str(tmp_path / "p"), count=1))
    assert drawn == (FewShot(question="S is in", answer="O"),)


def test_the_configuration_that_is_handed_on_has_them_filled_in(tmp_path: Path) -> None:
    given = config(tmp_path, ROWS)
    filled = with_few_shots(given, [scan(given.data)])
    assert filled.prompt.few_shots == choose(given)
    assert filled.prompt.few_shot_data is None
    assert RunConfig.model_validate_json(filled.model_dump_json()) == filled
    assert with_few_shots(filled, []) is filled
    assert filled.model_copy(update={"prompt": given.prompt}) == given


@pytest.mark.parametrize(("most", "count"), [(1, 0), (2, 1), (3, 2), (None, 3)])
def test_they_are_drawn_with_so_many_paraphrases_and_the_draw_is_the_same(
    tmp_path: Path, most: int | None, count: int
) -> None:
    rows = [train(i, ways=[f"Train {i}?", f"{i} a", f"{i} b", f"{i} c"][: i % 2 * 3 + 1]) for i in range(30)]
    keys = {"fields": {"paraphrases": "ways"}, "count": 12}
    drawn = choose(config(tmp_path, rows, max_paraphrases=most, **keys))
    assert [shot.question for shot in drawn] == [s.question for s in choose(config(tmp_path, rows, **keys))]
    numbers = [int(shot.question.split()[1].rstrip("?")) for shot in drawn]
    assert {i % 2 for i in numbers} == {0, 1}
    for i, shot in zip(numbers, drawn, strict=True):  # the question is not repeated; some rows have no other
        assert shot.paraphrases == (f"{i} a", f"{i} b", f"{i} c")[:count] * (i % 2)


def test_paraphrases_are_asked_for_only_where_there_are_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_paraphrases: fields\.paraphrases is null\. Name the field"):
        config(tmp_path, ROWS, max_paraphrases=2)
    with pytest.raises(ConfigError, match="max_paraphrases: kind webqa has no paraphrases"):
        config(tmp_path, ROWS, max_paraphrases=2, kind="webqa")


def test_a_row_that_asks_a_paraphrase_of_an_earlier_few_shot_is_refused(tmp_path: Path) -> None:
    given = config(tmp_path, ROWS, asked=[record(1, paraphrases=["by whom?"])])
    few_shots = [FewShot(question="Who?", answer="I", paraphrases=("By  whom?",))]
    with pytest.raises(ConfigError, match="'by whom\\?' was drawn as a few-shot when the run began"):
        refuse_asked_few_shots(few_shots, [scan(given.data)])


def test_without_paraphrases_records_and_fingerprints_are_as_before_there_were_any(tmp_path: Path) -> None:
    shot = FewShot(question="Who?", answer="I")
    assert shot.model_dump() == {"question": "Who?", "answer": "I"}
    several = FewShot(question="Who?", answer="I", paraphrases=("By whom?",))
    assert several.model_dump(mode="json")["paraphrases"] == ["By whom?"]
    assert FewShot(**several.model_dump(mode="json")) == several
    drawn_from = config(tmp_path, ROWS).prompt.few_shot_data
    assert drawn_from is not None
    assert "max_paraphrases" not in drawn_from.model_dump(mode="json")
    assert drawn_from.model_copy(update={"max_paraphrases": 3}).model_dump()["max_paraphrases"] == 3
