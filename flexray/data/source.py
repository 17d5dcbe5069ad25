"""The rows of a data set: records of its files, grouped, adapted, joined with other paraphrases, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from flexray.config.data import DataConfig
from flexray.data.adapters import open_adapter
from flexray.data.adapters.adapter import PARTS, Grouping
from flexray.data.adapters.questions import Records
from flexray.data.block import BLOCK_ROWS, Block, of_records, without_collector
from flexray.data.check_columns import Mask, check_columns
from flexray.data.choice import chooses
from flexray.data.field_columns import FieldColumns, of_batch, of_values
from flexray.data.files import SourceFile, reading, reading_file
from flexray.data.identity import identify
from flexray.data.join import Join
from flexray.data.plan_rows import to_table
from flexray.data.question import Question
from flexray.data.ranges import Range
from flexray.data.readers import COLUMNAR, in_auxiliary_file, read_blocks, read_records
from flexray.data.record import Record, lookup
from flexray.data.required_fields import FieldCheck
from flexray.data.selection import Selection
from flexray.data.validate import to_question
from flexray.storage import redact


class Source:
    """Makes plan rows of the records of a data set's files.

    Raises:
        DataError: an auxiliary file (templates, joined paraphrases) cannot be used.
        ConfigError: there is no adapter of the name `data.kind`.
    """

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        with reading(", ".join((*config.template_files, *config.paraphrase_files))):
            self._adapter = open_adapter(config)
            self.joined = Join(config) if config.paraphrase_files else None
        # its fields are where the configuration says, and nothing is added to them
        self._by_columns = (
            type(self._adapter) is Records
            and self.joined is None
            and bool(config.fields.id)
            and not isinstance(config.fields.paraphrases, tuple)
            and not chooses(config)
        )
        self.selection = Selection.of_config(config)
        self.num_read = 0  # rows, also those that are not selected
        self.checks: dict[str, FieldCheck] = {}  # of each file
        self.id_field = config.fields.id  # of the first record; others may have another
        self._knows_id_field = config.kind == "records"

    def read(self, part: Range) -> Iterator[pa.Table]:
        """The rows of a part of the data set that are selected, as tables of PLAN_SCHEMA.

        Raises:
            DataError: while iterating, if a file cannot be read or has another format.
        """
        left = part.most
        for file, block in self._blocks(part):
            if left is not None:
                block = block.head(left)
                left -= block.num_rows
            table = self._to_table(block, file)
            self.num_read += len(table)
            if self.selection is not None:
                table = self.selection.of(table)
            if len(table):
                yield table
            if left == 0:
                return

    def _blocks(self, part: Range) -> Iterator[tuple[SourceFile, Block]]:
        required, grouping = self._adapter.required, self._adapter.grouping
        for file in part.files:
            self.checks[file.path] = FieldCheck(file.path, required)
        if grouping is None:
            (file,) = part.files
            with reading_file(file):
                for block in read_blocks(file, required, part.start, part.stop, part.first_row):
                    yield file, block
            return
        rows = group_by(self._all_records(part), grouping)
        for file in part.files:
            found = rows.get(file.path, [])
            for start in range(0, len(found), BLOCK_ROWS):
                records = found[start : start + BLOCK_ROWS]
                yield file, of_records(records, records[0].row)

    def _all_records(self, part: Range) -> Iterator[tuple[str, Record]]:
        for file in part.files:
            with reading_file(file):
                for record in read_records(file, self._adapter.required):
                    self._look_at(record, file)
                    yield file.path, record

    def _look_at(self, record: Record, file: SourceFile) -> None:
        if file.format not in COLUMNAR:  # these are checked by their schema
            self.checks[file.path].add(record)

    def _to_table(self, block: Block, file: SourceFile) -> pa.Table:
        shown = redact(file.path)
        found = self._columns(block)
        if found is None:
            return to_table(self._questions(block, range(block.num_rows), file, shown))
        table, good = check_columns(found, self._config, shown, block.first_row)
        if file.format not in COLUMNAR:
            self.checks[file.path].add_complete(len(table))
        rest = np.flatnonzero(~good).tolist()
        if not rest:
            return table
        return _merged(table, to_table(self._questions(block, rest, file, shown)), good)

    def _columns(self, block: Block) -> FieldColumns | None:
        if not self._by_columns:
            return None
        if block.values is not None:
            with without_collector():
                return of_values(block.values, self._config.fields)
        assert block.batch is not None, block
        return of_batch(block.batch, self._config.fields)

    def _questions(
        self, block: Block, indices: Sequence[int], file: SourceFile, shown: str
    ) -> list[Question]:
        """The questions of records that have to be looked at one by one."""
        questions = []
        for record in block.records(indices):
            if self._adapter.grouping is None:
                self._look_at(record, file)
            row = self._adapt(record, file.path)
            questions.append(to_question(row, identify(row, self._config), self._config, shown))
        return questions

    def _adapt(self, record: Record, file: str) -> Record:
        if record.value is None:
            return record
        record = self._adapter.adapt(record, file)
        if not self._knows_id_field:
            self.id_field, self._knows_id_field = record.fields.id, True
        if self.joined is None:
            return record
        return self.joined.join(record, identify(record, self._config).source_id)


def _merged(good: pa.Table, others: pa.Table, is_good: Mask) -> pa.Table:
    """The rows of both tables in order."""
    places = np.empty(len(is_good), np.int64)
    places[is_good] = np.arange(len(good))
    places[~is_good] = len(good) + np.arange(len(others))
    return pa.concat_tables([good, others]).take(pa.array(places))


def group_by(records: Iterable[tuple[str, Record]], grouping: Grouping) -> dict[str, list[Record]]:
    """Group the records of all files by a key. The result maps each file to its rows in order.

    A row has the position of its first record. A record without a usable key becomes a separate row.
    """
    rows: dict[str, list[Record]] = {}
    parts: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    first: dict[tuple[str, ...], tuple[list[Record], int]] = {}  # key -> position of the row
    shared: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # equal parts share one object, to save memory
    for file, record in records:
        mine = rows.setdefault(file, [])
        if record.value is None:
            mine.append(record)
            continue
        values = tuple(lookup(record.value, path) for path in grouping.part)
        if all(isinstance(v, str | bool) for v in values):
            values = shared.setdefault(values, values)
        if (key := grouping.key(record.value)) is not None:
            known = parts.setdefault(key, [])
            known.append(values)
            theirs, place = first.setdefault(key, (mine, len(mine)))
            if len(known) > 1:
                if record.faults:
                    faults = (*theirs[place].faults, *in_auxiliary_file(file, record, record.faults))
                    theirs[place] = replace(theirs[place], faults=faults)
                continue
        else:
            known = [values]
        mine.append(replace(record, value=record.value | {PARTS: known}))
    return rows
