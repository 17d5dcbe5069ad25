"""Any records: `data.fields` says where each value stands. A list may be JSON in a text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from flexray.config.data import DataConfig
from flexray.data.adapters.adapter import DatasetAdapter
from flexray.data.records import Record, lookup
from flexray.data.required_fields import of_fields


class Records(DatasetAdapter):
    def __init__(self, config: DataConfig) -> None:
        self.required = of_fields(config.fields)
        self._fields = config.fields

    def adapt(self, record: Record, file: str) -> Record:
        del file
        assert record.value is not None
        parsed = {}
        for path in (self._fields.paraphrases, self._fields.answers):
            if path is not None and (texts := _listed(lookup(record.value, path))) is not None:
                parsed[path] = texts
        value = record.value | parsed if parsed else record.value
        return replace(record, value=value, fields=self._fields)


def _listed(value: Any) -> list[Any] | None:
    """The list that stands as JSON in a text, as PopQA has its answers; None: there is none."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return None
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list) else None
