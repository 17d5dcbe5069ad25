"""Templates of relations, and the paraphrases that are made from them for a subject.

A template has [X] in the place of the subject and [Y] in the place of the answer. Of the templates of a
relation, the manual ones come first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flexray.config.data import DataConfig
from flexray.data.adapters.adapter import FieldReader
from flexray.data.choice import drawn
from flexray.data.readers import FileVersions, in_auxiliary_file, read_whole, record_error
from flexray.data.record import FieldFault
from flexray.data.required_fields import RequiredFields
from flexray.storage import redact

MASK = "[MASK]"


@dataclass(frozen=True, slots=True)
class Template:
    """A template with [X]; [Y] is already removed or replaced."""

    text: str
    manual: bool


class Templates:
    """The usable templates of each relation, and the faults of the others."""

    def __init__(self, found: Iterable[tuple[str, Template | None, Sequence[FieldFault]]]) -> None:
        """`found`: relation, template and faults of each record of a template."""
        usable: dict[str, list[Template]] = {}
        self._faults: dict[str, list[FieldFault]] = {}
        for relation, template, faults in found:
            if faults:
                self._faults.setdefault(relation, []).extend(faults)
            elif template is not None:
                usable.setdefault(relation, []).append(template)
        self._usable = {relation: in_order(templates) for relation, templates in usable.items()}

    def for_relation(
        self, relation: str, field: str, config: DataConfig
    ) -> tuple[tuple[Template, ...], Sequence[FieldFault]]:
        """The templates of a relation in order, and their faults, which become faults of the relation's rows.

        Args:
            field: the field of the row that has the relation.
        """
        templates = self._usable.get(relation, ())
        faults = self._faults.get(relation, ())
        if not templates and not faults:
            files = redact(", ".join(config.template_files))
            style = f" of style {config.pararel_style}" if config.kind == "pararel" else ""
            problem = f"no template{style} for it in {files}"
            return (), [FieldFault(field, relation, problem, "Add one, or correct data.template_files.")]
        return templates, faults


def read_templates(
    versions: FileVersions,
    required: RequiredFields,
    read: Callable[[FieldReader, str], tuple[str, Template | None]],
) -> Templates:
    """The templates of auxiliary files.

    Args:
        required: the fields of their records.
        read: gives a record's relation and template, or none; it gets its file's name too.

    Raises:
        DataError: a file cannot be read, or a record has no relation.
    """

    def all_found() -> Iterator[tuple[str, Template | None, list[FieldFault]]]:
        for file, record in read_whole(versions, required):
            reader = FieldReader(record)
            relation, template = read(reader, file)
            if not relation:
                raise record_error(file, record, reader.faults[0])
            yield relation, template, in_auxiliary_file(file, record, reader.faults)

    return Templates(all_found())


def masked(pattern: str) -> str:
    """The pattern with [MASK] in place of the answer."""
    return pattern.replace("[Y]", MASK)


def completion(pattern: str) -> str:
    """The part of the pattern before the answer; "" if more than a full stop follows the answer."""
    begin = re.fullmatch(r"(.*)\[Y\]\s*\.?\s*", pattern, re.DOTALL)
    return begin[1].strip() if begin else ""


def slots_problem(pattern: str) -> str:
    """Why a string is not a pattern; "" if it is."""
    counts = pattern.count("[X]"), pattern.count("[Y]")
    if counts == (1, 1):
        return ""
    return f"[X] and [Y] must each occur once, but [X] occurs {counts[0]} and [Y] {counts[1]} times"


def in_order(templates: Iterable[Template]) -> tuple[Template, ...]:
    """Manual templates first, otherwise in the given order; each text once."""
    by_text: dict[str, Template] = {}
    for template in sorted(templates, key=lambda t: not t.manual):
        by_text.setdefault(template.text, template)
    return tuple(by_text.values())


def fill_all(templates: Sequence[Template], subject: str, row: str, config: DataConfig) -> dict[str, Any]:
    """Question, paraphrases and num_manual of one row; {} if no template is left.

    Args:
        templates: the templates in order.
        row: identifies the row; each row draws its own templates.
    """
    manual = [t.text for t in templates if t.manual]
    automatic = [t.text for t in templates if not t.manual]
    seed = config.paraphrase_seed
    manual = [manual[i] for i in drawn(manual, config.max_manual, row, seed)]
    automatic = [automatic[i] for i in drawn(automatic, config.max_automatic, row, seed)]
    texts = [text.replace("[X]", subject) for text in (*manual, *automatic)]
    return {"question": texts[0], "paraphrases": texts, "num_manual": len(manual)} if texts else {}
