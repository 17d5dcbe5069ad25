"""Files of output rows from before some columns."""

import pyarrow as pa

from flexray.sink.records.rows import (
    ADDED,
    ROW_SCHEMA,
    columns_of,
    from_parquet,
    row_faults,
    schema_fault,
    to_parquet,
)
from tests.unit.sink.builders import row


def test_a_file_that_lacks_the_last_columns_is_one_of_output_rows_with_nulls_there():
    whole = pa.Table.from_pylist([row("a", "s"), row("b", "s")], schema=ROW_SCHEMA)
    for lacking in (ADDED, ADDED[:2], ADDED[2:]):
        read = from_parquet(to_parquet(whole.drop_columns(list(lacking))))
        assert schema_fault(read.schema) == ""
        assert row_faults(read, "s") == []
        assert read.equals(whole)


def test_a_file_that_lacks_another_column_is_none():
    whole = pa.Table.from_pylist([row("a", "s")], schema=ROW_SCHEMA)
    assert "error" in schema_fault(from_parquet(to_parquet(whole.drop_columns(["error"]))).schema)


def test_records_from_before_a_column_name_the_same_columns():
    old = pa.schema([field for field in ROW_SCHEMA if field.name not in ADDED])
    assert columns_of(old) == columns_of(ROW_SCHEMA)
