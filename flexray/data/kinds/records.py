"""Any records: `data.fields` says where each value stands."""

from __future__ import annotations

from dataclasses import replace

from flexray.data.kinds.kind import Kind
from flexray.data.records import Record
from flexray.data.wanted import of_fields
from flexray.data_config import DataConfig


class Records(Kind):
    def __init__(self, config: DataConfig) -> None:
        self.wanted = of_fields(config.fields)
        self._fields = config.fields

    def adapt(self, record: Record, file: str) -> Record:
        del file
        return replace(record, fields=self._fields)
