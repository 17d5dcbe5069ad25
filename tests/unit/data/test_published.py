"""Published data sets: a few rows in the form in which authors or the hub have them, read by the recipes."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from flexray.config import load_config
from flexray.config.data import HubDataSet
from flexray.data.hub import download_data_set
from flexray.data.question import Question
from tests.conftest import PROJECT
from tests.hub import FakeHub
from tests.unit.data.conftest import read_all, write
from tests.unit.data.test_text_formats import write_table

RECIPES = PROJECT / "jobs" / "recipes" / "data"


def by_recipe(name: str, files: Path | str, *more: str) -> list[Question]:
    """The rows that a recipe reads from these files."""
    config = load_config([str(RECIPES / f"{name}.yaml")], ["model.path=m", f"data.files={files}", *more])
    return read_all(config.data)


def answers_of(questions: list[Question]) -> list[tuple[str, tuple[str, ...], str]]:
    """Of each good row: id, accepted answers, relation."""
    assert [q.error for q in questions] == [""] * len(questions)
    return [(q.source_id, q.answers or (), q.relation) for q in questions]


POPQA = {
    "id": 4222362,
    "subj": "George Rankin",
    "prop": "occupation",
    "obj": "politician",
    "subj_id": 1850297,
    "prop_id": 22,
    "obj_id": 2834605,
    "s_aliases": '["George James Rankin"]',
    "o_aliases": '["political leader","political figure","polit.","pol"]',
    "s_uri": "http://www.wikidata.org/entity/Q5543720",
    "o_uri": "http://www.wikidata.org/entity/Q82955",
    "s_wiki_title": "George Rankin",
    "o_wiki_title": "Politician",
    "s_pop": 142,
    "o_pop": 25692,
    "question": "What is George Rankin's occupation?",
    "possible_answers": '["politician", "political leader", "political figure", "polit.", "pol"]',
}


@pytest.mark.parametrize("file", ["popQA.tsv", "data/test-00000-of-00001.parquet"])
def test_popqa(tmp_path: Path, file: str) -> None:
    make = write_table if file.endswith("tsv") else write
    path = make(tmp_path / file, [POPQA])
    found = by_recipe("popqa", tmp_path if file.startswith("data") else path)
    accepted = ("politician", "political leader", "political figure", "polit.", "pol")
    assert answers_of(found) == [("4222362", accepted, "occupation")]
    assert found[0].paraphrases == (POPQA["question"],)


def test_natural_questions(tmp_path: Path) -> None:
    question = "when was the last time anyone was on the moon"
    rows = [{"question": question, "answer": ["14 December 1972 UTC", "December 1972"]}]
    write(tmp_path / "nq_open" / "validation-00000-of-00001.parquet", rows)
    of_hub = by_recipe("nq_open", tmp_path / "nq_open")
    assert [(q.question, q.answers) for q in of_hub] == [
        (question, ("14 December 1972 UTC", "December 1972"))
    ]
    of_authors = by_recipe("nq_open", write(tmp_path / "NQ-open.dev.jsonl", rows))
    assert answers_of(of_authors) == answers_of(of_hub)


def test_squad(tmp_path: Path) -> None:
    id_, question = "56be4db0acb8001400a502ec", "Which NFL team represented the AFC at Super Bowl 50?"
    texts = ["Denver Broncos"] * 3
    row = {"id": id_, "title": "Super_Bowl_50", "context": "Super Bowl 50 was ..", "question": question}
    answers = {"text": texts, "answer_start": [177] * 3}
    write(tmp_path / "squad" / "validation-00000-of-00001.parquet", [row | {"answers": answers}])
    of_hub = by_recipe("squad", tmp_path / "squad")
    assert answers_of(of_hub) == [(id_, ("Denver Broncos",), "")]
    listed = [{"answer_start": 177, "text": text} for text in texts]
    paragraph = {"context": row["context"], "qas": [{"answers": listed, "question": question, "id": id_}]}
    whole = {"data": [{"title": row["title"], "paragraphs": [paragraph]}], "version": "1.1"}
    (tmp_path / "dev-v1.1.json").write_text(json.dumps(whole))
    of_authors = by_recipe("squad", tmp_path / "dev-v1.1.json")
    assert answers_of(of_authors) == answers_of(of_hub)
    assert of_authors[0].paraphrases == of_hub[0].paraphrases == (question,)


TRIVIA = "Who was the man behind The Chipmunks?"


def test_triviaqa(tmp_path: Path) -> None:
    of_hub = {
        "question": TRIVIA,
        "question_id": "tc_2",
        "question_source": "http://www.triviacountry.com/",
        "entity_pages": {"doc_source": [], "filename": [], "title": [], "wiki_context": []},
        "search_results": {"description": [], "filename": [], "rank": [], "title": [], "url": []},
        "answer": {
            "aliases": ["David Seville"],
            "normalized_aliases": ["david seville"],
            "matched_wiki_entity_name": "",
            "normalized_matched_wiki_entity_name": "",
            "normalized_value": "david seville",
            "type": "WikipediaEntity",
            "value": "David Seville",
        },
    }
    Dataset.from_list([of_hub]).to_parquet(tmp_path / "validation-00000-of-00001.parquet")
    found = by_recipe("triviaqa", tmp_path)
    assert answers_of(found) == [("tc_2", ("David Seville",), "")]
    answer = {
        "Aliases": ["David Seville"],
        "MatchedWikiEntityName": "David Seville",
        "NormalizedAliases": ["david seville"],
        "NormalizedMatchedWikiEntityName": "david seville",
        "NormalizedValue": "david seville",
        "Type": "WikipediaEntity",
        "Value": "David Seville",
    }
    row = {"Answer": answer, "EntityPages": [], "Question": TRIVIA, "QuestionId": "tc_2"}
    row |= {"QuestionSource": "http://www.triviacountry.com/", "SearchResults": []}
    whole = {"Data": [row], "Domain": "Wikipedia", "Split": "dev", "VerifiedEval": False, "Version": 1.0}
    (tmp_path / "wikipedia-dev.json").write_text(json.dumps(whole))
    of_authors = by_recipe("triviaqa", tmp_path / "wikipedia-dev.json")
    assert answers_of(of_authors) == answers_of(found)
    assert of_authors[0].paraphrases == found[0].paraphrases == (TRIVIA,)


def test_webquestions(tmp_path: Path) -> None:
    url, question = (
        "http://www.freebase.com/view/en/natalie_portman",
        "what character did natalie portman play?",
    )
    row = {"url": url, "question": question, "answers": ["Padmé Amidala"]}
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [row])
    (found,) = by_recipe("webqa", tmp_path)
    assert (found.question, found.answers, found.error) == (question, ("Padmé Amidala",), "")


TREX: dict[str, Any] = {
    "uuid": "3fe3d4da-9df9-45ba-8109-784ce5fba38a",
    "obj_uri": "Q142",
    "obj_label": "France",
    "sub_uri": "Q191954",
    "sub_label": "president of the French Republic",
    "predicate_id": "P1001",
}
RELATION = {
    "template": "[X] is a legal term in [Y] .",
    "template_negated": "[X] is not a legal term in [Y] .",
    "label": "applies to jurisdiction",
    "description": "the item (an institution, law, ..)",
    "type": "N-M",
}
EVIDENCES = [
    {"sub_surface": "President", "obj_surface": "France", "masked_sentence": f"{n}, the President of [MASK]."}
    for n in ("A monarchy", "A principality")
]
ASKED = "president of the French Republic is a legal term in [MASK] ."


def test_lama_of_its_authors(tmp_path: Path) -> None:
    write(tmp_path / "relations.jsonl", [{"relation": "P1001"} | RELATION])
    path = write(tmp_path / "TREx" / "P1001.jsonl", [TREX | {"evidences": EVIDENCES}])
    found = by_recipe("lama", path, f"data.template_files={tmp_path / 'relations.jsonl'}")
    assert answers_of(found) == [(TREX["uuid"], ("France",), "P1001")]
    assert (found[0].paraphrases, found[0].num_manual) == ((ASKED,), 1)


def test_lama_of_the_hub_has_a_row_for_each_sentence(tmp_path: Path) -> None:
    rows = [TREX | evidence | RELATION for evidence in (*EVIDENCES, EVIDENCES[0])]
    other = TREX | EVIDENCES[0] | RELATION | {"uuid": "u2", "template": ""}
    write(tmp_path / "trex" / "train" / "0000.parquet", [rows[0], other, *rows[1:]], row_group_size=2)
    first, second = by_recipe("lama_hub", tmp_path / "trex")
    assert answers_of([first]) == [(TREX["uuid"], ("France",), "P1001")]
    assert (first.paraphrases, first.num_manual, first.source_row) == ((ASKED,), 1, 1)
    assert "field 'template': nothing is left of the fact's template and sentences" in second.error
    first, second = by_recipe("lama_hub", tmp_path / "trex", "data.max_automatic=null")
    sentences = tuple(e["masked_sentence"] for e in EVIDENCES)
    assert (first.paraphrases, first.num_manual) == ((ASKED, *sentences), 1)
    assert (second.paraphrases, second.num_manual) == (sentences[:1], 0)
    first, _ = by_recipe("lama_hub", tmp_path / "trex", "data.max_automatic=1", "data.max_manual=0")
    assert (first.paraphrases, first.num_manual) == (sentences[:1], 0)


@pytest.mark.parametrize("ids", [("7", "8"), ("", "8"), (None, True), (..., "u")])
def test_a_fact_of_lama_is_one_row_whatever_else_is_called_id(tmp_path: Path, ids: tuple[Any, ...]) -> None:
    rows = [TREX | e | RELATION | {"id": id_} for e, id_ in zip(EVIDENCES, ids, strict=True)]
    rows = [{key: value for key, value in row.items() if value is not ...} for row in rows]
    only_id = [row | {"uuid": uuid, "id": "u9"} for row, uuid in zip(rows, (None, ""), strict=True)]
    write(tmp_path / "trex" / "train.jsonl", rows + only_id)
    found = by_recipe("lama_hub", tmp_path / "trex" / "*.jsonl", "data.max_automatic=null")
    assert [(q.source_id, q.error) for q in found] == [(TREX["uuid"], ""), ("u9", "")]
    assert [len(q.paraphrases) for q in found] == [3, 3]


CONCEPTNET = {
    "uuid": "d4f11631dde8a43beda613ec845ff7d1",
    "sub": "alive",
    "obj": "think",
    "pred": "HasSubevent",
    "obj_label": "think",
    "masked_sentence": "One of the things you do when you are alive is [MASK].",
    "negated": "",
}
OF_SQUAD = {
    "id": "56be4db0acb8001400a502f0_0",
    "sub_label": "Squad",
    "obj_label": "gold",
    "negated": "['To emphasize the 50th anniversary of the Super Bowl the [MASK] color was not used.']",
    "masked_sentence": "To emphasize the 50th anniversary of the Super Bowl the [MASK] color was used.",
}
GOOGLE_RE = {
    "pred": "/people/person/date_of_birth",
    "sub": "/m/09gb0bw",
    "obj": "1941",
    "evidences": "[{'url': '..', 'snippet': '..', 'considered_sentences': ['..']}]",
    "judgments": "[{'rater': '18349444711114572460', 'judgment': 'yes'}]",
    "sub_w": "None",
    "sub_label": "Peter F. Martin",
    "sub_aliases": "[]",
    "obj_w": "None",
    "obj_label": "1941",
    "obj_aliases": "[]",
    "uuid": "18af2dac-21d3-4c42-aff5-c247f245e203",
    "masked_sentence": "Peter F Martin (born [MASK]) is an American politician .",
    "template": "[X] (born [Y]).",
    "template_negated": "[X] (not born [Y]).",
}


def test_the_other_parts_of_lama_on_the_hub(tmp_path: Path) -> None:
    found = []
    for name, row in {"conceptnet": CONCEPTNET, "squad": OF_SQUAD, "google_re": GOOGLE_RE}.items():
        write(tmp_path / name / "train" / "0000.parquet", [row])
        found += by_recipe("lama_hub", tmp_path / name, "data.max_automatic=null")
    assert answers_of(found) == [
        (CONCEPTNET["uuid"], ("think",), "HasSubevent"),
        (OF_SQUAD["id"], ("gold",), ""),
        (GOOGLE_RE["uuid"], ("1941",), "/people/person/date_of_birth"),
    ]
    assert [q.paraphrases for q in found] == [
        (CONCEPTNET["masked_sentence"],),
        (OF_SQUAD["masked_sentence"],),
        ("Peter F. Martin (born [MASK]).", GOOGLE_RE["masked_sentence"]),
    ]


PARAREL = [
    {"relation": "P30.jsonl", "subject": subject, "object": object_, "template": template}
    for template in ("[X] is located in [Y] .", "[X] belongs to the continent of [Y].", "[Y] is home to [X].")
    for subject, object_ in (("Lavoisier Island", "Antarctica"), ("Thailand", " Asia"))
]


def test_pararel_of_the_hub_has_a_row_for_each_pattern(tmp_path: Path) -> None:
    rows = [row | {"query": "..", "candidates": ["Asia", "Europe"]} for row in PARAREL]
    path = write(tmp_path / "data" / "train-00000-of-00001.parquet", rows)
    first, second = found = by_recipe("pararel_hub", path)
    assert [(q.answers, q.relation, q.error) for q in found] == [
        (("Antarctica",), "P30", ""),
        (("Asia",), "P30", ""),
    ]
    assert second.paraphrases == ("Thailand is located in", "Thailand belongs to the continent of")
    assert (first.num_manual, first.source_row, second.source_row) == (2, 1, 2)
    masked = by_recipe("pararel_hub", path, "data.pararel_style=mask")
    assert masked[1].paraphrases[2] == "[MASK] is home to Thailand."
    patterns = [{"pattern": row["template"]} for row in PARAREL[::2]]
    write(tmp_path / "patterns" / "P30.jsonl", patterns)
    facts = [{"sub_label": "Thailand", "obj_label": "Asia"}]  # the same fact of the authors: the same id
    write(tmp_path / "facts" / "P30.jsonl", facts)
    (of_authors,) = by_recipe("pararel", tmp_path)
    assert (of_authors.source_id, of_authors.paraphrases) == (second.source_id, second.paraphrases)


def test_a_fact_of_pararel_is_one_row_however_its_records_are_spaced(tmp_path: Path) -> None:
    names = ("P30.jsonl", "P30", " P30.jsonl ")
    rows = [
        PARAREL[2 * i]
        | {"relation": name, "subject": f"{' ' * i}Lavoisier Island", "object": f"Antarctica{' ' * i}"}
        for i, name in enumerate(names)
    ]
    faulty = [rows[0] | {"subject": None}, rows[0] | {"object": " "}]
    write(tmp_path / "a.parquet", rows + faulty)
    fact, *others = by_recipe("pararel_hub", tmp_path / "a.parquet", "data.pararel_style=mask")
    assert (fact.answers, fact.relation, fact.num_manual, fact.error) == (("Antarctica",), "P30", 3, "")
    assert ["field 'subject'" in others[0].error, "field 'object'" in others[1].error] == [True, True]
    assert len(others) == 2


def test_pararel_of_its_authors_in_an_archive(tmp_path: Path) -> None:
    for relation, pattern in {"P30": "[X] is located in [Y] .", "P36": "The capital of [X] is [Y] ."}.items():
        write(tmp_path / "patterns" / f"{relation}.jsonl", [{"pattern": pattern}])
        facts = [{"sub_label": f"S{relation}", "obj_label": "O", "uuid": f"u{relation}"}]
        write(tmp_path / "facts" / f"{relation}.jsonl", facts)
    unpacked = by_recipe("pararel", tmp_path)
    assert answers_of(unpacked) == [("uP30", ("O",), "P30"), ("uP36", ("O",), "P36")]
    with zipfile.ZipFile(tmp_path / "pararel.zip", "w") as zipped:
        for path in sorted(tmp_path.glob("*/P*.jsonl")):
            packed = path.parent.name == "patterns"
            name = f"{path.parent.name}/{path.name}{'.gz' * packed}"
            zipped.writestr(name, gzip.compress(path.read_bytes()) if packed else path.read_bytes())
    templates = f"zip://patterns/P*.jsonl.gz::{tmp_path}/pararel.zip"
    found = by_recipe(
        "pararel", f"zip://facts/P*.jsonl::{tmp_path}/pararel.zip", f"data.template_files={templates}"
    )
    assert answers_of(found) == answers_of(unpacked)
    assert [q.paraphrases for q in found] == [q.paraphrases for q in unpacked]


def test_a_faulty_row_of_pararel_on_the_hub_is_told(tmp_path: Path) -> None:
    rows = [PARAREL[0] | {"template": "[X] is somewhere."}, PARAREL[1] | {"template": "[Y] has [X]."}]
    write(tmp_path / "a.parquet", rows)
    first, second = by_recipe("pararel_hub", tmp_path / "a.parquet")
    assert "row 1, field 'template': [X] and [Y] must each occur once" in first.error
    assert "row 2, field 'template': it has no template of style completion" in second.error


MYRIAD = [
    {
        "uuid": "b0d7c8a5",
        "rel_uri": "P36",
        "sub_uri": "Q142",
        "sub_ent": "France",
        "obj_uris": ["Q90"],
        "obj_ents": ["Paris"],
        "obj_aliases": ["Paris", "City of Light"],
        "template": template,
        "is_manual": manual,
    }
    for template, manual in (("[Y] leads [X].", False), ("The capital of [X] is [Y].", True))
]


def test_myriadlama_of_the_hub_accepts_all_forms_or_those_of_the_scripts(tmp_path: Path) -> None:
    rows = [MYRIAD[0] | {"obj_ents": ["Paris", "Ville de Paris"]}, MYRIAD[1]]
    write(tmp_path / "data" / "train-00000-of-00001.parquet", rows)
    found = by_recipe("myriadlama", tmp_path)
    assert answers_of(found) == [("b0d7c8a5", ("Paris", "Ville de Paris", "City of Light"), "P36")]
    assert found[0].paraphrases == ("The capital of France is [MASK].", "[MASK] leads France.")
    assert found[0].num_manual == 1
    of_scripts = by_recipe("myriadlama", tmp_path, "data.myriadlama_answers=aliases")
    assert answers_of(of_scripts) == [("b0d7c8a5", ("Paris", "City of Light"), "P36")]
    write(tmp_path / "data" / "train-00000-of-00001.parquet", [MYRIAD[0] | {"obj_aliases": []}])
    (bad,) = by_recipe("myriadlama", tmp_path, "data.myriadlama_answers=aliases")
    assert bad.error.endswith("the fact has no object (value: []). Give it obj_aliases.")


@pytest.mark.parametrize(
    ("recipe", "name", "split", "rows", "count"),
    [
        ("popqa", "akariasai/PopQA", "test", [POPQA], 1),
        ("pararel_hub", "coastalcph/pararel_patterns", "train", PARAREL, 2),
        ("myriadlama", "iszhaoxin/MyriadLAMA", "train", MYRIAD, 1),
    ],
)
def test_a_name_on_the_hub_gives_the_rows_of_its_files(
    hub: FakeHub, tmp_path: Path, recipe: str, name: str, split: str, rows: list[dict[str, Any]], count: int
) -> None:
    path = write(tmp_path / "data" / f"{split}-00000-of-00001.parquet", rows)
    hub.push(f"datasets/{name}", tmp_path)
    download_data_set(HubDataSet.model_validate(name))
    found = by_recipe(recipe, "[]", f"data.hub={name}")
    same = by_recipe(recipe, path)
    assert answers_of(found) == answers_of(same)
    assert [q.paraphrases for q in found] == [q.paraphrases for q in same]
    assert len(found) == count
