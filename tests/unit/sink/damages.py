"""Each kind of damage that an output can take, done to a finished run of the shards A, B and C."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from flexray.sink import Manifest, OutputFolder
from flexray.sink.commit.manifests import list_manifests
from flexray.sink.records import RUN_FILE, manifest_name
from flexray.sink.records.rows import to_parquet
from tests.unit.sink.builders import (
    PLAN_FILE,
    A,
    B,
    C,
    commit_all,
    edit_json,
    forge,
    row,
    shard_id,
    start,
    table,
)

ORPHAN = f"data/{B.shard_id}-{'0' * 32}.parquet"

Do = Callable[[OutputFolder, dict[str, Manifest]], object]


@dataclass(frozen=True)
class Damage:
    do: Do
    kinds: set[str]
    """What verify calls it; rows that are missing in consequence are not named here."""
    advice: str = "`flexray repair` moves the shard aside"
    bad: set[str] = field(default_factory=lambda: {B.shard_id})
    """The shards that must be computed again."""


def flip(name: str) -> Do:
    """Flip a bit in the middle of a file, or of shard B's data file if the name is `data`."""

    def do(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
        path = manifests[B.shard_id].file if name == "data" else name
        data = bytearray(folder.read_bytes(path))
        data[len(data) // 2] ^= 1
        folder.write_bytes(path, bytes(data))

    return do


def rows_b(change: Callable[[list[dict]], list[dict]]) -> Do:
    """Other rows in shard B, sealed as if they had been committed."""
    return lambda folder, manifests: forge(
        folder, manifests[B.shard_id], table(B, rows=change(table(B).to_pylist()))
    )


def sealed_b(**changes: object) -> Do:
    """Another manifest of shard B, sealed as if it were a true one."""

    def do(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
        forged = manifests[B.shard_id].model_copy(update=changes).sealed()
        folder.write_bytes(manifest_name(B.shard_id), forged.to_bytes())

    return do


def other_columns(change: Callable[[pa.Table], pa.Table]) -> Do:
    return lambda folder, manifests: forge(folder, manifests[B.shard_id], change(table(B)))


def _truncate(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
    folder.write_bytes(manifests[B.shard_id].file, folder.read_bytes(manifests[B.shard_id].file)[:100])


def _swap(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
    a, b = (folder.read_bytes(manifests[name].file) for name in (A.shard_id, B.shard_id))
    folder.write_bytes(manifests[A.shard_id].file, b)
    folder.write_bytes(manifests[B.shard_id].file, a)


def _no_parquet(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
    folder.write_bytes(manifests[B.shard_id].file, b"text")
    sealed_b(bytes=4, sha256=hashlib.sha256(b"text").hexdigest())(folder, manifests)


def _copy_manifest(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
    folder.write_bytes(manifest_name(shard_id(3)), folder.read_bytes(manifest_name(B.shard_id)))


def _claim_file_of_a(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
    forged = manifests[A.shard_id].model_copy(update={"shard_id": shard_id(3)}).sealed()
    folder.write_bytes(manifest_name(shard_id(3)), forged.to_bytes())


def _other_accounting(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
    wrong = manifests[B.shard_id].accounting.model_copy(update={"correct": 3})
    sealed_b(accounting=wrong)(folder, manifests)


DAMAGES = {
    "a flipped byte in the data": Damage(flip("data"), {"data_damaged"}),
    "truncated data": Damage(_truncate, {"data_damaged"}),
    "a lost data file": Damage(lambda folder, m: folder.remove(m[B.shard_id].file), {"data_missing"}),
    "swapped data files": Damage(_swap, {"data_damaged"}, bad={A.shard_id, B.shard_id}),
    "data that are no Parquet": Damage(_no_parquet, {"data_damaged"}),
    "a lost column": Damage(other_columns(lambda t: t.drop_columns(["error"])), {"data_schema"}),
    "a column of another type": Damage(
        other_columns(lambda t: t.set_column(0, "row_id", t["row_id"].cast(pa.large_string()))),
        {"data_schema"},
    ),
    "a doubled row": Damage(rows_b(lambda rows: [*rows, rows[0]]), {"doubled_rows"}),
    "a row of another shard": Damage(
        rows_b(lambda rows: [*rows, row(A.row_ids[0], B.shard_id)]), {"doubled_rows", "unknown_rows"}
    ),
    "an unknown row": Damage(rows_b(lambda rows: [*rows, row("qa/test/x", B.shard_id)]), {"unknown_rows"}),
    "a row of an unknown method": Damage(
        rows_b(lambda rows: [*rows, rows[0] | {"method": "x"}]), {"unknown_rows"}
    ),
    "a lost row": Damage(rows_b(lambda rows: rows[1:]), {"incomplete_shard"}),
    "rows in another order": Damage(rows_b(lambda rows: rows[::-1]), {"unaccounted"}),
    "rows that break the rules": Damage(
        rows_b(lambda rows: [r | {"backend_used": "eager"} for r in rows]), {"unaccounted"}
    ),
    "an accounting that is not that of the rows": Damage(_other_accounting, {"unaccounted"}),
    "a flipped byte in a manifest": Damage(
        flip(manifest_name(B.shard_id)), {"manifest_damaged"}, "repair` moves it aside"
    ),
    "an edited manifest": Damage(
        lambda folder, m: edit_json(folder, manifest_name(B.shard_id), rows=3),
        {"manifest_damaged"},
        "repair` moves it aside",
    ),
    "an empty manifest": Damage(
        lambda folder, m: folder.write_bytes(manifest_name(B.shard_id), b""),
        {"manifest_damaged"},
        "repair` moves it aside",
    ),
    "a manifest that names a file outside": Damage(
        sealed_b(file="data/../secret.parquet"), {"manifest_damaged"}, "repair` moves it aside"
    ),
    "a manifest of a revision that replaces none": Damage(
        sealed_b(revision=1), {"manifest_damaged"}, "repair` moves it aside"
    ),
    "a manifest of another number of rows": Damage(sealed_b(rows=5), {"data_damaged"}),
    "a manifest of another run": Damage(
        sealed_b(fingerprint="0" * 64), {"manifest_of_another_run"}, "repair` moves it aside"
    ),
    "a copied manifest": Damage(
        _copy_manifest, {"manifest_misplaced"}, "repair` moves this copy aside", bad=set()
    ),
    "a manifest that claims another shard's file": Damage(
        _claim_file_of_a, {"orphans"}, "Readers ignore", bad=set()
    ),
    "a lost manifest": Damage(
        lambda folder, m: folder.remove(manifest_name(B.shard_id)), {"orphans"}, "Readers ignore"
    ),
    "a flipped byte in the plan": Damage(
        flip(PLAN_FILE), {"plan_damaged"}, "`flexray repair` moves it aside", bad=set()
    ),
    "a lost plan": Damage(
        lambda folder, m: folder.remove(PLAN_FILE), {"plan_missing"}, "Run again", bad=set()
    ),
    "a flipped byte in the run record": Damage(
        flip(RUN_FILE), {"run_record_damaged"}, "a run with the same configuration writes it again", bad=set()
    ),
    "an orphan": Damage(
        lambda folder, m: folder.write_bytes(ORPHAN, to_parquet(table(B))),
        {"orphans"},
        "`flexray repair` moves those older than an hour aside",
        bad=set(),
    ),
    "a foreign file": Damage(
        lambda folder, m: folder.write_bytes("data/thesis.parquet", b"mine"),
        {"foreign_files"},
        "move them elsewhere",
        bad=set(),
    ),
}


def _the_compact_file(folder: OutputFolder) -> str:
    (name,) = list_manifests(folder).compacts
    return name


def _flip_in_line_of_b(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
    name = _the_compact_file(folder)
    data = bytearray(folder.read_bytes(name))
    data[data.index(f'"shard_id":"{B.shard_id}"'.encode()) - 20] ^= (
        1  # the keys are sorted: most of them stand before this
    )
    folder.write_bytes(name, bytes(data))


def _cut_last_line(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
    name = _the_compact_file(folder)
    lines = folder.read_bytes(name).splitlines(keepends=True)
    folder.write_bytes(name, b"".join(lines[:-1]))


def _join_lines(folder: OutputFolder, manifests: dict[str, Manifest]) -> None:
    name = _the_compact_file(folder)
    folder.write_bytes(name, folder.read_bytes(name).replace(b"\n", b" ", 1))


_COMPACT_ADVICE = "moves it aside and keeps its good records"
COMPACT_DAMAGES = {  # done after the manifests were compacted
    "a flipped byte in a compact file": Damage(_flip_in_line_of_b, {"manifest_damaged"}, _COMPACT_ADVICE),
    "a truncated compact file": Damage(
        _cut_last_line, {"manifest_damaged"}, _COMPACT_ADVICE, bad={C.shard_id}
    ),
    "joined lines in a compact file": Damage(
        _join_lines, {"manifest_damaged"}, _COMPACT_ADVICE, bad={A.shard_id, B.shard_id}
    ),
    "a renamed compact file": Damage(
        lambda folder, m: (
            folder.write_bytes(
                f"_manifests/compact-{'0' * 64}.jsonl", folder.read_bytes(_the_compact_file(folder))
            ),
            folder.remove(list_manifests(folder).compacts[1]),
        ),
        {"manifest_damaged"},
        _COMPACT_ADVICE,
        bad=set(),
    ),
}


def quiet(line: str) -> None:
    """Nobody is told."""


def resume(folder: OutputFolder) -> set[str]:
    """What a second start does; returns the shards that it computes."""
    return {shard.shard_id for shard in commit_all(folder, start(folder))}


def files(folder: OutputFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(folder.url).rglob("*") if path.is_file()}


def contents(folder: OutputFolder) -> set[bytes]:
    """All bytes that matter: compact files are rewritten, and their records kept one by one."""
    return {data for path, data in files(folder).items() if not path.name.startswith("compact-")}
