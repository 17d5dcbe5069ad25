"""Real data sets, where datasets/ or what FLEXRAY_DATA names has them: no row becomes an error."""

from collections import Counter
from typing import Any

import pytest

from flexray.config import FewShot, parse_config
from flexray.data import scan
from flexray.data.few_shots import choose_few_shots
from flexray.data.question import Question
from tests.conftest import DATA
from tests.unit.data.conftest import data_config, read_all


def questions(name: str, **keys: Any) -> list[Question]:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not here")
    found = read_all(data_config(DATA / name, **keys))
    assert [q.error for q in found if q.error] == []
    assert len({q.row_id for q in found}) == len(found)
    assert all(q.paraphrases and q.answers and q.num_manual == len(q.paraphrases) for q in found)
    return found


@pytest.mark.parametrize(("part", "rows"), [("devtest", 189), ("val", 755)])
def test_every_question_of_webquestions_is_read(part: str, rows: int) -> None:
    assert len(questions(f"webqa/{part}.json", kind="webqa")) == rows


@pytest.mark.parametrize("style", ["completion", "mask"])
def test_every_fact_of_pararel_is_read_in_both_styles(style: str) -> None:
    found = questions("pararel", kind="pararel", pararel_style=style)
    relations = Counter(q.relation for q in found)
    assert len(relations) == 12
    assert sum(relations.values()) == 9839
    texts = [text for q in found for text in q.paraphrases]
    assert not any("[X]" in text or "[Y]" in text for text in texts)
    assert all(("[MASK]" in text) == (style == "mask") for text in texts)


def test_few_shots_of_webquestions_are_of_the_other_part() -> None:
    devtest, val = questions("webqa/devtest.json", kind="webqa"), DATA / "webqa" / "val.json"
    tree = {
        "output": "o",
        "model": {"path": "m"},
        "data": {"name": "d", "kind": "webqa", "files": str(DATA / "webqa" / "devtest.json")},
        "prompt": {"few_shot_data": {"kind": "webqa", "files": str(val), "count": 8}},
    }
    config = parse_config(tree, source="test")
    drawn = choose_few_shots(config, [scan(config.data)])
    assert len(drawn) == 8
    assert all(isinstance(shot, FewShot) for shot in drawn)
    assert not {shot.question for shot in drawn} & {q.question for q in devtest}
