"""PopQA, Natural Questions, SQuAD and LAMA in the forms in which they are published."""

import json
from pathlib import Path

import pytest

from tests.unit.data.conftest import data_config, read_all, write
from tests.unit.data.test_text_formats import write_table


@pytest.mark.parametrize("extension", ["tsv", "jsonl", "parquet"])
def test_popqa_accepts_each_answer_of_its_json_text(tmp_path: Path, extension: str) -> None:
    rows = [
        {
            "id": str(i),
            "subj": f"S{i}",
            "prop": "occupation",
            "question": f"What is S{i}'s occupation?",
            "possible_answers": json.dumps(["politician", f'the "{i}"']) if i else "politician",
        }
        for i in range(3)
    ]
    make = write_table if extension == "tsv" else write
    bad, *good = read_all(data_config(make(tmp_path / f"a.{extension}", rows), kind="popqa"))
    assert [q.answers for q in good] == [("politician", f'the "{i}"') for i in (1, 2)]
    assert [(q.source_id, q.relation, q.error) for q in good] == [(str(i), "occupation", "") for i in (1, 2)]
    assert good[0].paraphrases == ("What is S1's occupation?",)
    assert "row 1, field 'possible_answers'" in bad.error
    assert "a JSON list of strings is needed" in bad.error


@pytest.mark.parametrize("extension", ["jsonl", "parquet"])
def test_natural_questions_have_ids_made_from_the_question(tmp_path: Path, extension: str) -> None:
    rows = [{"question": f"who is {i}", "answer": [f"a{i}", "b"]} for i in range(3)]
    questions = read_all(data_config(write(tmp_path / f"a.{extension}", rows), kind="nq_open"))
    assert [q.answers for q in questions] == [(f"a{i}", "b") for i in range(3)]
    assert {len(q.source_id) for q in questions} == {16}
    assert not any(q.error for q in questions)


def test_squad_is_read_as_its_authors_publish_it_and_as_the_hub_has_it(tmp_path: Path) -> None:
    texts = [["Aachen", "Aachen", "Bonn"], [], ["Cologne"]]
    of_authors = [
        {
            "id": f"s{i}",
            "question": f"Where is {i}?",
            "answers": [{"text": t, "answer_start": 0} for t in found],
        }
        for i, found in enumerate(texts)
    ]
    paragraphs = [{"context": "c", "qas": of_authors[:2]}, {"context": "d", "qas": of_authors[2:]}]
    whole = {"version": "v2.0", "data": [{"title": "T", "paragraphs": paragraphs}]}
    (tmp_path / "dev.json").write_text(json.dumps(whole))
    of_hub = [
        row | {"answers": {"text": t, "answer_start": [0] * len(t)}}
        for row, t in zip(of_authors, texts, strict=True)
    ]
    for path in (tmp_path / "dev.json", write(tmp_path / "hub.parquet", of_hub)):
        questions = read_all(data_config(path, kind="squad"))
        assert [q.answers for q in questions] == [("Aachen", "Bonn"), None, ("Cologne",)]
        assert [(q.source_id, q.source_row, q.error) for q in questions] == [
            (f"s{i}", i + 1, "") for i in range(3)
        ]
        assert questions[0].paraphrases == ("Where is 0?",)


FACT = {"uuid": "u1", "predicate_id": "P19", "sub_label": "Ann", "obj_label": "Bonn"}
EVIDENCES = [{"masked_sentence": f"Ann{i} was born in [MASK] ."} for i in (1, 2, 1)]


def test_lama_asks_the_template_of_the_relation_or_the_masked_sentences(tmp_path: Path) -> None:
    templates = write(
        tmp_path / "relations.jsonl", [{"relation": "P19", "template": "[X] was born in [Y] ."}]
    )
    path = write(
        tmp_path / "P19.jsonl", [FACT | {"evidences": EVIDENCES}, FACT | {"uuid": "u2", "evidences": []}]
    )
    first, second = read_all(data_config(path, kind="lama", template_files=str(templates)))
    assert first.paraphrases == second.paraphrases == ("Ann was born in [MASK] .",)
    assert (first.answers, first.relation, first.num_manual, first.error) == (("Bonn",), "P19", 1, "")
    first, second = read_all(data_config(path, kind="lama"))
    assert first.paraphrases == ("Ann1 was born in [MASK] .", "Ann2 was born in [MASK] .")
    assert (
        "row 2, field 'evidences': a list with a masked sentence is needed, not an empty list" in second.error
    )
    [only, _] = read_all(data_config(path, kind="lama", max_automatic=1))
    assert only.paraphrases == ("Ann1 was born in [MASK] .",)


def test_lama_without_a_uuid_or_a_mask(tmp_path: Path) -> None:
    rows = [
        {"masked_sentences": [text], "obj_label": "wet"} for text in ("Water is [MASK] .", "Water is wet .")
    ]
    good, bad = read_all(data_config(write(tmp_path / "test.jsonl", rows), kind="lama"))
    assert (good.error, good.paraphrases, len(good.source_id)) == ("", ("Water is [MASK] .",), 16)
    assert "field 'masked_sentences': element 1 of 1 is no sentence with [MASK]" in bad.error
