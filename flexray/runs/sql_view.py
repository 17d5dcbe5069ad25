"""The committed rows of a run as a view of SQL over its data files, which are not copied."""

from __future__ import annotations

from collections.abc import Sequence

from flexray.sink import OutputFolder, whole_shards
from flexray.sink.read.visible import literal, look
from flexray.sink.records.rows import ROW_SCHEMA


def view_sql(
    folder: OutputFolder, name: str, *, everything: bool = False, methods: Sequence[str] = ()
) -> tuple[str, int]:
    """A statement of DuckDB's SQL that makes a view of exactly the rows that `read_committed` gives now, and
    how many data files it reads. Name and size of each file are compared with its manifest, not its bytes.

    Args:
        name: the view's.
        everything, methods: as `read_committed`.

    Raises:
        OutputError, DamageError: as `read_committed`.
    """
    run, seen = look(folder, everything=everything, methods=methods)
    shards = [manifest for manifest in whole_shards(folder, run).values() if seen.has(manifest)]
    view = '"' + name.replace('"', '""') + '"'
    lines = [f"-- The rows of {folder} that are committed now. Written again, it shows later ones, too."]
    lines.append(f"CREATE OR REPLACE VIEW {view} AS")
    if not shards:
        columns = ", ".join(f'NULL AS "{column}"' for column in ROW_SCHEMA.names)
        return "\n".join([*lines, f"SELECT {columns} WHERE false;\n"]), 0
    files = ",\n    ".join(literal(folder.where(manifest.file)) for manifest in shards)
    # files of earlier releases may lack the last columns; `key=value` in the folder's path is no column
    options = "union_by_name = true, hive_partitioning = false"
    lines += [f"SELECT * FROM read_parquet([\n    {files}\n], {options})"]
    if condition := seen.condition(shards):
        lines.append(f"WHERE {condition}")
    return "\n".join(lines) + ";\n", len(shards)
