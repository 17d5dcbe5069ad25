"""ParaRel: patterns/P19.jsonl {pattern} and facts/P19.jsonl {sub_label, obj_label, uuid}; or as on the hub.

Of the authors' files, the name is the relation. On the hub (no `template_files`), a record is a fact with one
of its patterns, {relation, template, subject, object}; the relation is the name of that file. The records of
a fact are grouped, also across files; so one process reads the whole data set and has it in memory.

All patterns are manual. A fact without a uuid gets an id that is made from its relation, subject and object.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from flexray.config.data import DataConfig, Fields
from flexray.data.adapters.adapter import PARTS, DatasetAdapter, FieldReader, Grouping, Key
from flexray.data.adapters.templates import (
    Template,
    Templates,
    completion,
    fill_all,
    in_order,
    masked,
    read_templates,
    slots_problem,
)
from flexray.data.identity import short_digest, text_problem
from flexray.data.readers import FileVersions, find_versions
from flexray.data.record import MISSING, FieldFault, Record, canonical, found, lookup
from flexray.data.required_fields import RequiredFields
from flexray.data.text import is_compressed, name_of

_FIELDS = Fields(id="uuid", answers="obj_label", relation="relation", num_manual="num_manual")
_PATTERNS = RequiredFields((("pattern",),), named="data.template_files", kind="pararel")


_FACT = ("relation", "subject", "object")
_OF_HUB = RequiredFields((("relation", "template", "subject", "object"),), kind="pararel")


class ParaRel(DatasetAdapter):
    """Facts, with the patterns of their relations in other files or in the same records."""

    required = RequiredFields((("sub_label", "obj_label"),), also=("uuid",), kind="pararel")

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        self._templates: Templates | None = None
        if config.template_files:
            versions = find_versions(config.template_files, "data.template_files")
            self._templates = _load(versions, config.pararel_style)
        else:
            self.required = _OF_HUB
            self.grouping = Grouping(_fact_of_hub, ("template",))

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        return self._of_files(reader, file, self._templates) if self._templates else self._of_hub(reader)

    def _of_hub(self, reader: FieldReader) -> Record:
        relation, subject, answer = _normal(*(reader.text(path) for path in _FACT))
        templates = []
        for (pattern,) in reader.get(PARTS):
            problem = slots_problem(pattern) if isinstance(pattern, str) else f"it is {found(pattern)}"
            if problem:
                reader.faults.append(FieldFault("template", pattern, problem, "Correct the fact's rows."))
            elif text := _styled(pattern, self.config.pararel_style):
                templates.append(Template(text, manual=True))
        row = f"{relation}-{short_digest(canonical([subject, answer]).encode())}"
        values: dict[str, object] = {"relation": relation, "uuid": row, "obj_label": [answer]}
        if not reader.faults and not templates:
            problem = f"it has no template of style {self.config.pararel_style}"
            reader.fault("template", problem, "Set data.pararel_style to mask.")
        if not reader.faults:
            values |= fill_all(in_order(templates), subject, row, self.config)
        return reader.row(_FIELDS, **values)

    def _of_files(self, reader: FieldReader, file: str, found_templates: Templates) -> Record:
        relation = _relation_of(file)
        subject, answer = reader.text("sub_label"), reader.text("obj_label")
        values: dict[str, object] = {"relation": relation}
        if answer:
            values["obj_label"] = [answer]
        if reader.get("uuid") in (None, "", MISSING):
            content = canonical([reader.get("sub_label"), reader.get("obj_label")])
            values["uuid"] = f"{relation}-{short_digest(content.encode())}"
        templates, faults = found_templates.for_relation(relation, "relation", self.config)
        reader.faults += faults
        if not reader.faults:
            row = str(values.get("uuid", reader.get("uuid")))
            values |= fill_all(templates, subject, row, self.config)
        return reader.row(_FIELDS, **values)


def _fact_of_hub(value: dict[str, Any]) -> Key | None:
    """What the records of a fact have in common; None: the record is faulty."""
    texts = [lookup(value, path) for path in _FACT]
    if any(not isinstance(text, str) or text_problem(text, "") for text in texts):
        return None
    return _normal(*texts)


def _normal(relation: str, subject: str, answer: str) -> tuple[str, str, str]:
    """A fact as its id has it."""
    return relation.strip().removesuffix(".jsonl").strip(), subject.strip(), answer.strip()


def _relation_of(file: str) -> str:
    """The file's name without its extensions; of a member of an archive, the member's."""
    name = name_of(file)
    return PurePosixPath(name.stem if is_compressed(file) else name.name).stem


def _styled(pattern: str, style: str) -> str:
    """What is asked of a pattern; "" if the style cannot ask it."""
    return masked(pattern) if style == "mask" else completion(pattern)


@lru_cache(maxsize=4)
def _load(versions: FileVersions, style: str) -> Templates:
    def read(reader: FieldReader, file: str) -> tuple[str, Template | None]:
        pattern = reader.text("pattern")
        if pattern and (problem := slots_problem(pattern)):
            reader.fault("pattern", problem, "Correct the pattern.")
        text = _styled(pattern, style)
        return _relation_of(file), Template(text, manual=True) if text else None

    return read_templates(versions, _PATTERNS, read)
