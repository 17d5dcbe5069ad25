"""What file systems, desktops and people leave in an output folder stops nothing, and is told."""

from pathlib import Path

import pytest

from flexray.sink import compact, discard_run, read_committed, repair, verify
from tests.unit.sink.builders import SHARDS, B, finished, start, table
from tests.unit.sink.damages import files, quiet, resume

FOLDERS = [
    "_manifests/.ipynb_checkpoints",
    "_manifests/tmp",
    f"_manifests/{B.shard_id}.json",
    "_manifests/x.json",
    "_manifests/.x.tmp",
    "data/.ipynb_checkpoints",
    "data/.x.tmp",
    f"data/{B.shard_id}-{'0' * 32}.parquet",
    ".ipynb_checkpoints",
    "notes",
]
FILES = [
    "_manifests/.DS_Store",
    "_manifests/._b.json",
    "_manifests/.nfs000000000000001",
    "_manifests/b (1).json",
    "_manifests/notes.txt",
    "data/Thumbs.db",
    "data/._b.parquet",
    "data/.nfs000000000000001",
    ".DS_Store",
    "notes.txt",
]


def leave(folder, name, *, as_folder):
    path = Path(folder.url, name)
    if as_folder:
        path.mkdir(parents=True)
        path = path / "inner.json"
    path.write_bytes(b"mine")


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_what_is_foreign_is_told_and_neither_repair_nor_resume_minds_it(folder, name):
    run = finished(folder)
    if name == f"_manifests/{B.shard_id}.json":  # else there is a file of that name
        compact(folder, run.fingerprint, max_singles=0)
    leave(folder, name, as_folder=name in FOLDERS)
    before = files(folder)
    report = verify(folder)
    assert report.ok
    assert report.foreign == (name,)
    assert report.orphans == ()
    assert any(name in str(finding) for finding in report.findings)
    assert repair(folder, all_orphans=True, log=quiet).moved == ()
    assert resume(folder) == set()
    assert list(read_committed(folder)) == [table(spec) for spec in SHARDS]
    assert files(folder) == before


@pytest.mark.parametrize("name", [".DS_Store", ".ipynb_checkpoints", "lost+found", "data/.DS_Store"])
def test_a_run_starts_in_a_folder_that_holds_but_what_systems_leave(folder, name):
    Path(folder.url, "data").mkdir()
    leave(folder, name, as_folder="." not in name or "ipynb" in name)
    start(folder)
    assert verify(folder).foreign == (name,)


def test_a_start_afresh_leaves_what_is_foreign(folder):
    run = finished(folder)
    compact(folder, run.fingerprint, max_singles=0)
    for name in ("data/thesis.parquet", "_manifests/._b.json", "notes.txt"):
        leave(folder, name, as_folder=False)
    leave(folder, "_manifests/x.json", as_folder=True)
    assert discard_run(folder)
    left = {str(path.relative_to(folder.url)) for path in files(folder)}
    assert left == {"data/thesis.parquet", "_manifests/._b.json", "_manifests/x.json/inner.json", "notes.txt"}
