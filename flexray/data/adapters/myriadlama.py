"""MyriadLAMA: facts of Wikidata, each with many manual and automatic templates.

As published (no `template_files`), a record is a fact with one of its templates, {uuid, rel_uri, sub_ent,
obj_aliases, template, is_manual}. The records of a fact are grouped, also across files; so one process reads
the whole data set and has it in memory.

With `template_files` of {rel_uri, template, type} (type is manual or auto; or is_manual, a boolean), a record
is a fact {uuid, rel_uri, sub_ent, obj_aliases}, and each part of a file is read by itself.

Accepted answers are all of obj_ent, obj_ents, obj_exps and obj_aliases that a record has; or, with
`myriadlama_answers: aliases`, those of obj_aliases alone. The subject is sub_ent, or the first of sub_exps if
there is no sub_ent.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from typing import Any

from flexray.config.data import DataConfig, Fields
from flexray.data.adapters.adapter import PARTS, DatasetAdapter, FieldReader, Grouping, distinct, first_id
from flexray.data.adapters.templates import (
    Template,
    Templates,
    fill_all,
    in_order,
    masked,
    read_templates,
    slots_problem,
)
from flexray.data.readers import FileVersions, find_versions
from flexray.data.record import MISSING, FieldFault, Record, found, unpacked
from flexray.data.required_fields import RequiredFields

_OBJECTS = ("obj_ent", "obj_ents", "obj_exps", "obj_aliases")
_SUBJECTS = ("sub_ent", "sub_exps")
_PART = ("template", "is_manual")
_ANSWERS = ", ".join(_OBJECTS)
_FIELDS = Fields(id="uuid", answers=_ANSWERS, relation="rel_uri", num_manual="num_manual")
_TEMPLATES = RequiredFields(
    (("rel_uri", "template", "type"), ("rel_uri", "template", "is_manual")),
    named="data.template_files",
    kind="myriadlama",
)
_BOOLS = {"true": True, "false": False}
_TYPES = {"manual": True, "auto": False, "automatic": False}


class MyriadLAMA(DatasetAdapter):
    """Facts, with templates in the same records or in separate files."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        own = () if config.template_files else _PART
        objects = ("obj_aliases",) if config.myriadlama_answers == "aliases" else _OBJECTS
        forms = tuple(("uuid", "rel_uri", s, o, *own) for s, o in product(_SUBJECTS, objects))
        self.required = RequiredFields(forms, also=(*_SUBJECTS, *objects), kind="myriadlama")
        self._objects = objects
        self._templates: Templates | None = None
        if config.template_files:
            self._templates = _load(find_versions(config.template_files, "data.template_files"))
        else:
            self.grouping = Grouping(partial(first_id, paths=("uuid",)), _PART)

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        relation = reader.text("rel_uri")
        templates: tuple[Template, ...] = ()
        if self._templates is None:
            templates = _own_templates(reader)
        elif relation:
            templates, faults = self._templates.for_relation(relation, "rel_uri", self.config)
            reader.faults += faults
        return _row(reader, templates, self._objects, self.config)


def _own_templates(reader: FieldReader) -> tuple[Template, ...]:
    """The templates of a grouped fact."""
    templates = []
    for pattern, is_manual in reader.get(PARTS):
        template, problem = _to_template(pattern, is_manual)
        if template is None:
            value = (pattern, is_manual)
            reader.faults.append(FieldFault(" and ".join(_PART), value, problem, "Correct the fact's rows."))
        else:
            templates.append(template)
    return in_order(templates)


def _row(
    reader: FieldReader, templates: tuple[Template, ...], objects: Sequence[str], config: DataConfig
) -> Record:
    subject, answers = _subject(reader), _answers(reader, objects)
    values: dict[str, Any] = {_ANSWERS: answers} if answers else {}
    if not reader.faults:
        asked = fill_all(templates, subject, str(reader.get("uuid")), config)
        if not asked:
            reader.fault("rel_uri", "it has no template left", "Raise data.max_manual or max_automatic.")
        values |= asked
    return reader.row(_FIELDS, **values)


def _subject(reader: FieldReader) -> str:
    expressions = unpacked(reader.get("sub_exps"))
    if reader.get("sub_ent") is MISSING and isinstance(expressions, list) and expressions:
        if isinstance(expressions[0], str) and expressions[0].strip():
            return expressions[0]
        reader.fault("sub_exps", f"element 1 is not a string, but {found(expressions[0])}", "Correct it.")
        return ""
    return reader.text("sub_ent")


def _answers(reader: FieldReader, objects: Sequence[str]) -> list[Any]:
    """All expressions of all objects in these fields. Values that are not strings are kept, so that they are
    reported."""
    answers: list[Any] = []
    before = len(reader.faults)
    for path in objects:
        value = unpacked(reader.get(path))
        if isinstance(value, str):
            answers.append(value)
        elif isinstance(value, list):  # of strings, or for each object a list of strings
            answers += [e for v in value for e in (v if isinstance(v, list) else [v])]
        elif value is not None and value is not MISSING:
            reader.fault(path, f"a list of strings is needed, not {found(value)}", "Write it as a list.")
    if not answers and len(reader.faults) == before:
        reader.fault("obj_aliases", "the fact has no object", f"Give it {' or '.join(objects)}.")
    return distinct(answers)


def _to_template(pattern: Any, is_manual: Any) -> tuple[Template | None, str]:
    if not isinstance(pattern, str):
        return None, f"the template must be a string, not {found(pattern)}"
    if isinstance(is_manual, str):  # of CSV
        is_manual = _BOOLS.get(is_manual.lower(), is_manual)
    if not isinstance(is_manual, bool):
        return None, f"is_manual must be true or false, not {found(is_manual)}"
    problem = slots_problem(pattern)
    return (None, problem) if problem else (Template(masked(pattern).strip(), is_manual), "")


@lru_cache(maxsize=4)
def _load(versions: FileVersions) -> Templates:
    return read_templates(versions, _TEMPLATES, _read)


def _read(reader: FieldReader, file: str) -> tuple[str, Template | None]:
    relation = reader.text("rel_uri")
    kind, is_manual = reader.get("type"), reader.get("is_manual")
    if isinstance(kind, str) and kind in _TYPES:
        is_manual = _TYPES[kind]
    elif kind is not MISSING:
        reader.fault("type", "manual or auto is needed", "Write one of them.")
    template, problem = _to_template(reader.get("template"), is_manual)
    if template is None and not reader.faults:
        reader.fault("template", problem, "Correct it.")
    return relation, template
