"""LAMA: facts whose object is to be filled in at [MASK].

With `template_files` (relations.jsonl {relation, template}), a record of T-REx {uuid, predicate_id,
sub_label, obj_label} is asked by the template of its relation. Without, its sentences are the paraphrases:
those of `masked_sentences` (Google-RE, ConceptNet, SQuAD), or of each of its `evidences` (T-REx). A record
without a uuid or id (SQuAD) gets an id that is made from its relation, subject, object and sentences.

On the hub (kind lama_hub), a record is a fact with one of its sentences, {uuid (SQuAD: id), obj_label,
masked_sentence}; of T-REx and Google-RE with the relation's template, too. The records of a fact are grouped,
also across files; so one process reads the whole data set and has it in memory.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from flexray.config.data import DataConfig, Fields
from flexray.data.adapters.adapter import PARTS, DatasetAdapter, FieldReader, Grouping, distinct, first_id
from flexray.data.adapters.templates import (
    Template,
    Templates,
    fill_all,
    masked,
    read_templates,
    slots_problem,
)
from flexray.data.choice import drawn
from flexray.data.identity import short_digest
from flexray.data.readers import FileVersions, find_versions
from flexray.data.record import MISSING, FieldFault, Record, canonical, found
from flexray.data.required_fields import RequiredFields

_RELATION = ("predicate_id", "pred")
_IDS = ("uuid", "id")  # the first that a record has; SQuAD has no uuid
_FIELDS = Fields(id="uuid", answers="obj_label", relation="relation", num_manual="num_manual")
_TEMPLATES = RequiredFields((("relation", "template"),), named="data.template_files", kind="lama")
_OF_TEMPLATES = RequiredFields((("predicate_id", "sub_label", "obj_label"),), also=_IDS, kind="lama")
_OF_SENTENCES = RequiredFields(
    (("obj_label", "masked_sentences"), ("obj_label", "evidences")),
    also=(*_IDS, *_RELATION),
    kind="lama",
)


class LAMA(DatasetAdapter):
    """Facts asked by a template of their relation, or by sentences of their own."""

    required = _OF_SENTENCES

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        self._templates: Templates | None = None
        if config.template_files:
            self.required = _OF_TEMPLATES
            self._templates = _load(find_versions(config.template_files, "data.template_files"))

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        values: dict[str, Any] = {}
        if answer := reader.text("obj_label"):
            values["obj_label"] = [answer]
        relations = [reader.get(path) for path in _RELATION]
        values["relation"] = next((r for r in relations if isinstance(r, str)), "")
        texts: list[Any] = []
        subject, templates = "", tuple[Template, ...]()
        if self._templates is None:
            texts = _sentences(reader)
        else:
            subject, relation = reader.text("sub_label"), reader.text("predicate_id")
            if relation:
                templates, faults = self._templates.for_relation(relation, "predicate_id", self.config)
                reader.faults += faults
        id_ = next((path for path in _IDS if reader.get(path) not in (None, "", MISSING)), None)
        if id_ is None:
            id_ = "uuid"
            parts = [values["relation"], subject, reader.get("obj_label"), texts]
            values["uuid"] = short_digest(canonical(parts).encode())
        fields = _FIELDS.model_copy(update={"id": id_})
        if reader.faults:
            return reader.row(fields, **values)
        row = str(values.get(id_, reader.get(id_)))
        if self._templates is not None:
            values |= fill_all(templates, subject, row, self.config)
        else:
            keep = drawn(texts, self.config.max_automatic, row, self.config.paraphrase_seed)
            texts = [texts[i] for i in keep]
            values |= {"question": (texts or [""])[0], "paraphrases": texts, "num_manual": 0}
        return reader.row(fields, **values)


class LAMAOfHub(DatasetAdapter):
    """Facts as facebook/lama has them: the template of the relation, if there is one, is manual, the fact's
    sentences are automatic. `max_automatic: 0` asks the template alone, `max_manual: 0` the sentences."""

    required = RequiredFields(
        (("uuid", "obj_label", "masked_sentence"), ("id", "obj_label", "masked_sentence")),
        also=("sub_label", "template", *_RELATION),
        kind="lama_hub",
    )
    grouping = Grouping(partial(first_id, paths=_IDS), ("masked_sentence",))

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        assert record.value is not None
        faulty = "id" if reader.get("uuid") in (None, MISSING) else "uuid"
        id_, row = first_id(record.value, _IDS) or (faulty, "")
        sentences = distinct([sentence for (sentence,) in reader.get(PARTS)])
        _check_masks(reader, "masked_sentence", sentences)
        relations = [reader.get(path) for path in _RELATION]
        values: dict[str, Any] = {"relation": next((r for r in relations if isinstance(r, str)), "")}
        if answer := reader.text("obj_label"):
            values["obj_label"] = [answer]
        if not reader.faults:
            pattern = reader.get("template")
            template: tuple[str, ...] = ()
            if isinstance(pattern, str) and pattern.strip():
                if problem := slots_problem(pattern):
                    reader.fault("template", problem, "Correct it.")
                text = masked(pattern).strip().replace("[X]", reader.text("sub_label"))
                template = (text,)[: self.config.max_manual]
            kept = drawn(sentences, self.config.max_automatic, row, self.config.paraphrase_seed)
            texts = distinct([*template, *(sentences[i] for i in kept)])
            if not texts:
                advice = "Raise data.max_manual or data.max_automatic."
                reader.fault("template", "nothing is left of the fact's template and sentences", advice)
            values |= {"question": (texts or [""])[0], "paraphrases": texts, "num_manual": len(template)}
        return reader.row(_FIELDS.model_copy(update={"id": id_}), **values)


def _sentences(reader: FieldReader) -> list[Any]:
    """The masked sentences, each once."""
    own = reader.get("masked_sentences")
    path = "evidences" if own is MISSING or own is None else "masked_sentences"
    value = reader.get(path)
    if not isinstance(value, list) or not value:
        what = found(value) if value != [] else "an empty list"
        reader.fault(path, f"a list with a masked sentence is needed, not {what}", "Give the row one.")
        return []
    texts = [e.get("masked_sentence") if isinstance(e, dict) else e for e in value]
    _check_masks(reader, path, texts)
    return distinct(texts)


def _check_masks(reader: FieldReader, path: str, texts: list[Any]) -> None:
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or "[MASK]" not in text:
            problem = f"element {number} of {len(texts)} is no sentence with [MASK]"
            reader.faults.append(FieldFault(path, text, problem, "Correct or remove this element."))


@lru_cache(maxsize=4)
def _load(versions: FileVersions) -> Templates:
    return read_templates(versions, _TEMPLATES, _read)


def _read(reader: FieldReader, file: str) -> tuple[str, Template | None]:
    relation, pattern = reader.text("relation"), reader.text("template")
    if pattern and (problem := slots_problem(pattern)):
        reader.fault("template", problem, "Correct it.")
    return relation, None if reader.faults else Template(masked(pattern).strip(), manual=True)
