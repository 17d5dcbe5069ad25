"""ParaRel: patterns/P19.jsonl {pattern} and facts/P19.jsonl {sub_label, obj_label, uuid}.

The name of the file is the relation. All patterns are manual. A fact without a uuid gets an id that is made
from its relation, subject and object.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePosixPath

from flexray.config.data import DataConfig, Fields
from flexray.data.adapters.adapter import DatasetAdapter, FieldReader
from flexray.data.adapters.templates import (
    Template,
    Templates,
    completion,
    fill_all,
    masked,
    read_templates,
    slots_problem,
)
from flexray.data.identity import short_digest
from flexray.data.readers import FileVersions, find_versions
from flexray.data.record import MISSING, Record, canonical
from flexray.data.required_fields import RequiredFields

_FIELDS = Fields(id="uuid", answers="obj_label", relation="relation", num_manual="num_manual")
_PATTERNS = RequiredFields((("pattern",),), named="data.template_files", kind="pararel")


class ParaRel(DatasetAdapter):
    required = RequiredFields((("sub_label", "obj_label"),), also=("uuid",), kind="pararel")

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        versions = find_versions(config.template_files, "data.template_files")
        self._templates = _load(versions, config.pararel_style)

    def adapt(self, record: Record, file: str) -> Record:
        relation = PurePosixPath(file).stem
        reader = FieldReader(record)
        subject, answer = reader.text("sub_label"), reader.text("obj_label")
        values: dict[str, object] = {"relation": relation}
        if answer:
            values["obj_label"] = [answer]
        if reader.get("uuid") in (None, "", MISSING):
            content = canonical([reader.get("sub_label"), reader.get("obj_label")])
            values["uuid"] = f"{relation}-{short_digest(content.encode())}"
        templates, faults = self._templates.for_relation(relation, "relation", self.config)
        reader.faults += faults
        if not reader.faults:
            row = str(values.get("uuid", reader.get("uuid")))
            values |= fill_all(templates, subject, row, self.config)
        return reader.row(_FIELDS, **values)


@lru_cache(maxsize=4)
def _load(versions: FileVersions, style: str) -> Templates:
    def read(reader: FieldReader, file: str) -> tuple[str, Template | None]:
        pattern = reader.text("pattern")
        if pattern and (problem := slots_problem(pattern)):
            reader.fault("pattern", problem, "Correct the pattern.")
        text = masked(pattern) if style == "mask" else completion(pattern)
        return PurePosixPath(file).stem, Template(text, manual=True) if text else None

    return read_templates(versions, _PATTERNS, read)
