"""Data sets as they are published."""

import json
from pathlib import Path
from typing import Any

import pytest

from flexray.config.data import FROM_TEMPLATES, WITHOUT_TEMPLATES, Fields
from flexray.data import scan
from flexray.data.adapters import ADAPTERS, DatasetAdapter, register_adapter
from flexray.data.adapters.adapter import FieldReader
from flexray.data.record import Record
from flexray.data.required_fields import RequiredFields
from flexray.errors import ConfigError, DataError
from tests.unit.data.conftest import data_config, read_all, record, write
from tests.unit.data.published import FORMATS, HUB_WEBQA, TRIVIAQA, WEBQA


@pytest.mark.parametrize("kind", [*FROM_TEMPLATES, *WITHOUT_TEMPLATES])
def test_the_kinds_that_the_configuration_checks_are_registered(kind: str) -> None:
    assert kind in ADAPTERS


def test_a_kind_that_is_not_registered_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    config = data_config(write(tmp_path / "a.jsonl", WEBQA), kind="otherqa")
    names = "lama, lama_hub, myriadlama, nq_open, pararel, popqa, records, squad, triviaqa, webqa"
    with pytest.raises(
        ConfigError, match=rf"data\.kind: no dataset adapter is named 'otherqa'; known: {names}\."
    ):
        scan(config)


class CountryQA(DatasetAdapter):
    """A data set of countries and capitals, as a package outside of flexray may define it."""

    required = RequiredFields((("country", "capital"),), kind="countryqa")

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        question, answer = f"What is the capital of {reader.text('country')}?", reader.text("capital")
        answers = {"capital": [answer]} if answer else {}
        fields = Fields(id="country", answers="capital")
        return reader.row(fields, question=question, paraphrases=[question], **answers)


def test_a_registered_adapter_reads_a_data_set_by_its_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("flexray.data.adapters.ADAPTERS", dict(ADAPTERS))
    register_adapter("countryqa", CountryQA)
    register_adapter("countryqa", CountryQA)  # a module may be loaded twice
    records = [{"country": "Finland", "capital": "Helsinki"}, {"country": "Peru", "capital": 3}]
    config = data_config(write(tmp_path / "a.jsonl", records), kind="countryqa")
    good, bad = read_all(config)
    assert (good.source_id, good.answers) == ("Finland", ("Helsinki",))
    assert good.paraphrases == ("What is the capital of Finland?",)
    assert "field 'capital': a string is needed" in bad.error
    with pytest.raises(ConfigError, match="no dataset adapter is named 'peruqa'; known: countryqa, lama"):
        scan(config.model_copy(update={"kind": "peruqa"}))


def test_a_registered_name_cannot_be_taken_by_another_adapter() -> None:
    with pytest.raises(ValueError, match="'webqa' is already registered"):
        register_adapter("webqa", CountryQA)


@pytest.mark.parametrize("extension", FORMATS)
def test_webquestions_need_only_a_path(tmp_path: Path, extension: str) -> None:
    config = data_config(write(tmp_path / f"a.{extension}", WEBQA), kind="webqa")
    questions = read_all(config)
    assert [q.source_id for q in questions] == ["w0", "w1", "w2", "w3", "w4"]
    assert questions[1].paraphrases == (questions[1].question,) == ("who is 1?",)
    assert (questions[1].answers, questions[1].num_manual) == (("a1", "b"), 1)
    assert not any(q.error for q in questions)


@pytest.mark.parametrize("extension", FORMATS)
def test_webquestions_of_the_hub_have_ids_made_from_the_question(tmp_path: Path, extension: str) -> None:
    config = data_config(write(tmp_path / f"a.{extension}", HUB_WEBQA), kind="webqa")
    questions = read_all(config)
    assert len({q.source_id for q in questions}) == 5
    assert all(len(q.source_id) == 16 for q in questions)
    assert not any(q.error for q in questions)
    changed = [r | {"answers": ["other"], "url": "y"} for r in reversed(HUB_WEBQA)]
    again = read_all(data_config(write(tmp_path / "b.jsonl", changed), kind="webqa"))
    assert {q.question: q.row_id for q in again} == {q.question: q.row_id for q in questions}


@pytest.mark.parametrize("extension", FORMATS)
def test_triviaqa_accepts_the_value_and_each_alias_once(tmp_path: Path, extension: str) -> None:
    config = data_config(write(tmp_path / f"a.{extension}", TRIVIAQA), kind="triviaqa")
    questions = read_all(config)
    assert [q.answers for q in questions] == [(f"A{i}", "Aha") for i in range(5)]
    assert [q.source_id for q in questions] == [f"tc_{i}" for i in range(5)]
    assert not any(q.error for q in questions)


def test_triviaqa_with_hidden_answers_is_not_scored(tmp_path: Path) -> None:
    hidden = TRIVIAQA[0] | {"answer": {"value": "<unk>", "aliases": []}}
    [question] = read_all(data_config(write(tmp_path / "a.jsonl", [hidden]), kind="triviaqa"))
    assert (question.error, question.answers) == ("", None)


def by_the_authors(number: int, **changes: Any) -> dict[str, Any]:
    answer = {"Value": f"A{number}", "Aliases": [f"A{number}", "Aha"], "NormalizedValue": f"a{number}"}
    row = {"QuestionId": f"tc_{number}", "Question": f"who is {number}?", "Answer": answer, "EntityPages": []}
    return {key: value for key, value in (row | changes).items() if value is not ...}


def test_triviaqa_is_read_as_its_authors_publish_it(tmp_path: Path) -> None:
    whole = {"Domain": "Web", "Version": 1.0, "Data": [by_the_authors(i) for i in range(5)]}
    (tmp_path / "web-dev.json").write_text(json.dumps(whole))
    config = data_config(tmp_path / "web-dev.json", kind="triviaqa")
    questions = read_all(config)
    assert [q.answers for q in questions] == [(f"A{i}", "Aha") for i in range(5)]
    assert [q.source_id for q in questions] == [f"tc_{i}" for i in range(5)]
    assert [q.paraphrases for q in questions] == [(f"who is {i}?",) for i in range(5)]
    assert not any(q.error for q in questions)
    for other in ("webqa", "records"):
        with pytest.raises(DataError, match=r"whose key 'Data' has an array .*set data.kind: triviaqa"):
            scan(data_config(tmp_path / "web-dev.json", kind=other))


def test_triviaqa_of_its_authors_without_answers_is_not_scored_and_a_bad_one_is_an_error(
    tmp_path: Path,
) -> None:
    rows = [
        by_the_authors(0, Answer=...),
        by_the_authors(1, Answer={"Aliases": []}),
        by_the_authors(2, Question=3),
    ]
    hidden, bad_answer, bad_question = read_all(
        data_config(write(tmp_path / "a.jsonl", rows), kind="triviaqa")
    )
    assert (hidden.error, hidden.answers) == ("", None)
    assert "row 2, field 'Answer.Value': a string is needed, not a missing field" in bad_answer.error
    assert "row 3, field 'Question': a string is needed, not a number" in bad_question.error


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind != "records"])
@pytest.mark.parametrize("extension", FORMATS)
def test_files_of_another_data_set_are_refused_with_what_is_needed(
    tmp_path: Path, kind: str, extension: str
) -> None:
    path = write(tmp_path / f"a.{extension}", [{"other": 1}])
    keys = {"template_files": str(write(tmp_path / "t.jsonl", [{"pattern": "[X] [Y]"}]))}
    config = data_config(path, kind=kind, **(keys if kind == "pararel" else {}))
    with pytest.raises(DataError, match=rf"a\.{extension}: .*Needed by kind {kind}: .*'other'.*data\.kind"):
        scan(config)


@pytest.mark.parametrize("settings", [{}, {"paraphrases": [0]}, {"max_automatic": 1, "max_manual": 1}])
def test_candidates_may_be_json_in_a_text_however_rows_are_read(tmp_path: Path, settings: Any) -> None:
    rows = [record(i, cand='["x", "y"]') for i in range(2)]
    config = data_config(write(tmp_path / "a.jsonl", rows), fields={"candidates": "cand"}, **settings)
    assert [(q.candidates, q.error) for q in read_all(config)] == [(("x", "y"), "")] * 2


def test_lists_of_published_kinds_may_be_json_in_a_text(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text('question,answers\nWho?,"[""Ada"",""A. L.""]"\n')
    (question,) = read_all(data_config(tmp_path / "w.csv", kind="webqa"))
    assert (question.answers, question.error) == (("Ada", "A. L."), "")
    lines = [
        "uuid,rel_uri,sub_ent,obj_aliases,template,is_manual",
        'u,P19,Ann,"[""Rome"",""Roma""]",[X] was born in [Y].,True',
        'u,P19,Ann,"[""Rome"",""Roma""]",[X] is a child of [Y].,false',
    ]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    (fact,) = read_all(data_config(tmp_path / "m.csv", kind="myriadlama"))
    assert (fact.answers, fact.num_manual, len(fact.paraphrases), fact.error) == (("Rome", "Roma"), 1, 2, "")


def test_lama_s_squad_has_its_own_ids(tmp_path: Path) -> None:
    rows = [{"masked_sentences": ["It is [MASK]."], "obj_label": "gold", "id": f"5_{i}"} for i in range(2)]
    found = read_all(data_config(write(tmp_path / "s.jsonl", rows), kind="lama"))
    assert [(q.source_id, q.error) for q in found] == [("5_0", ""), ("5_1", "")]


def test_articles_and_paragraphs_of_squad_may_be_empty(tmp_path: Path) -> None:
    asked = {"id": "1", "question": "Who?", "answers": [{"text": "Ada"}]}
    articles = [
        {"title": "a", "paragraphs": None},
        {"title": "b", "paragraphs": [{"context": "c", "qas": None}, {"context": "c", "qas": [asked]}]},
    ]
    (tmp_path / "s.json").write_text(json.dumps({"data": articles}))
    (question,) = read_all(data_config(tmp_path / "s.json", kind="squad"))
    assert (question.source_row, question.answers, question.error) == (1, ("Ada",), "")
