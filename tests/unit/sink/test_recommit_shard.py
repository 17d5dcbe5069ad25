"""Error rows of a committed shard are replaced by better ones; good rows stay as they are."""

import json

import pytest

from flexray.sink import (
    DamageError,
    committed_shards,
    compact,
    read_committed,
    recommit_shard,
    repair,
    verify,
)
from flexray.sink.commit.manifests import list_manifests
from flexray.sink.commit.shard import CommitError
from flexray.sink.records import DATA_FOLDER, MANIFEST_FOLDER, manifest_name
from tests.unit.sink.builders import ERROR, A, B, C, commit, row, start, table


def rows(*bad):
    """Shard a with error rows at these places."""
    return [row(row_id, A.shard_id, **(ERROR if i in bad else {})) for i, row_id in enumerate(A.row_ids)]


@pytest.fixture(params=[False, True], ids=["single", "compacted"])
def run(request, folder):
    """A run whose shard a has errors in rows 1 and 3."""
    run = start(folder)
    commit(folder, run, A, table=table(A, rows=rows(1, 3)))
    commit(folder, run, B)
    commit(folder, run, C)
    if request.param:
        compact(folder, run.fingerprint, max_singles=0)
    return run


@pytest.fixture
def old(folder, run):
    return committed_shards(folder, run)[A.shard_id]


def recommit(folder, old, new_rows, **changes):
    arguments = {"engine_stats": {"retried": 2}, "seconds": 2.5}
    return recommit_shard(folder, old, table(A, rows=new_rows), **(arguments | changes))


def test_error_rows_are_replaced(folder, run, old):
    new = recommit(folder, old, rows(3))
    assert (new.revision, new.replaces) == (1, old.digest)
    assert (new.accounting.errors, old.accounting.errors) == (1, 2)
    assert (new.engine_stats, new.seconds) == ({"retried": 2}, 2.5)
    assert committed_shards(folder, run)[A.shard_id] == new
    assert next(read_committed(folder)) == table(A, rows=rows(3))
    report = verify(folder)
    assert report.ok
    assert report.orphans == (old.file,)


def test_a_revision_is_replaced_by_the_next(folder, run, old):
    first = recommit(folder, old, rows(3))
    second = recommit(folder, first, rows())
    assert (second.revision, second.replaces) == (2, first.digest)
    assert committed_shards(folder, run)[A.shard_id] == second
    assert verify(folder).ok


@pytest.mark.parametrize("max_files", [0, 10])
def test_a_later_revision_wins_in_whatever_form(folder, run, old, max_files):
    new = recommit(folder, old, rows())
    compact(folder, run.fingerprint, max_singles=0, max_files=max_files)
    assert list_manifests(folder).singles == ()
    assert committed_shards(folder, run)[A.shard_id] == new
    newest = recommit_shard(folder, new, table(A), engine_stats={}, seconds=0)
    assert newest == new  # nothing differs
    assert verify(folder).ok


def test_a_repeated_call_finds_what_the_first_has_done(folder, run, old):
    new = recommit(folder, old, rows())
    assert recommit(folder, old, rows(), seconds=9.0) == new
    assert recommit(folder, old, rows(3)) == new
    assert len(folder.list(DATA_FOLDER)) == 4


def test_rows_without_a_difference_are_not_committed_again(folder, run, old):
    assert recommit(folder, old, rows(1, 3)) == old
    assert len(folder.list(DATA_FOLDER)) == 3


@pytest.mark.parametrize("key", ["prediction", "token_ids", "error", "source_row", "confidences"])
def test_a_good_row_stays_as_it_is(folder, run, old, key):
    other = {
        "prediction": {"prediction": "berlin"},
        "token_ids": {"token_ids": [5, 6]},
        "error": ERROR,
        "source_row": {"source_row": 2},
        "confidences": {"confidences": [1.0, 0.5]},
    }[key]
    changed = rows()
    changed[2] |= other
    with pytest.raises(CommitError, match="rows without an error differ from the committed"):
        recommit(folder, old, changed)
    assert committed_shards(folder, run)[A.shard_id] == old
    assert len(folder.list(DATA_FOLDER)) == 3


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2, 3], [0, 1, 2, 3, 3]])
def test_the_rows_are_the_same_in_the_same_order(folder, run, old, order):
    with pytest.raises(CommitError, match="are not the 4 expected rows in the expected order"):
        recommit(folder, old, [rows()[i] for i in order])


def test_a_row_that_breaks_the_rules_is_not_committed(folder, run, old):
    changed = rows()
    changed[1] |= {"backend_used": "eager"}
    with pytest.raises(CommitError, match="without a reason"):
        recommit(folder, old, changed)


def test_another_revision_than_the_given_one_is_not_replaced(folder, run, old):
    first = recommit(folder, old, rows(3))
    recommit(folder, first, rows())
    with pytest.raises(CommitError, match="is at revision 2, which does not replace the given manifest"):
        recommit(folder, old, rows(1))


def test_rows_are_not_compared_with_a_damaged_file(folder, run, old):
    folder.write_bytes(old.file, folder.read_bytes(old.file)[:-1])
    with pytest.raises(DamageError, match="bytes, but"):
        recommit(folder, old, rows())


@pytest.mark.parametrize("point", ["before", "during", "after"])
@pytest.mark.parametrize("part", [DATA_FOLDER, MANIFEST_FOLDER])
def test_a_crash_at_any_step_leaves_the_old_rows_or_the_new(folder, run, old, point, part, monkeypatch):
    fault = {"point": f"sink.write.{point}", "match": {"name": f"{part}/*"}, "action": "raise:OSError"}
    monkeypatch.setenv("FLEXRAY_FAULTS", json.dumps([fault | {"ledger": folder.where("../ledger")}]))
    with pytest.raises(OSError, match="injected"):
        recommit(folder, old, rows())
    monkeypatch.delenv("FLEXRAY_FAULTS")
    assert verify(folder).ok
    visible = next(read_committed(folder))
    assert visible == (table(A) if (part, point) == (MANIFEST_FOLDER, "after") else table(A, rows=rows(1, 3)))
    assert recommit(folder, old, rows()).revision == 1
    assert next(read_committed(folder)) == table(A)


def test_a_damaged_revision_is_repaired_by_computing_the_shard_again(folder, run, old):
    new = recommit(folder, old, rows())
    folder.write_bytes(manifest_name(A.shard_id), b"{")
    kept = {folder.read_bytes(name) for name in (old.file, new.file)}
    result = repair(folder, log=lambda _: None)
    assert result.rows_to_redo == 4
    assert kept <= {folder.read_bytes(f"{result.quarantine}/{name}") for name in result.moved}
    assert list(committed_shards(folder, run)) == [B.shard_id, C.shard_id]
    commit(folder, run, A)
    assert verify(folder).ok
