"""A run that is there: its record is read, or all of it is discarded."""

from __future__ import annotations

from flexray.errors import OutputError
from flexray.sink.commit.manifests import is_manifest_file
from flexray.sink.folder import OutputFolder, is_leftover
from flexray.sink.plan.files import is_plan_file
from flexray.sink.records import (
    DATA_FOLDER,
    MANIFEST_FOLDER,
    OLD_PLAN_FILE,
    PLAN_FOLDER,
    RUN_FILE,
    AnyRecord,
    RunRecord,
    parse_run,
    shard_of_data_file,
)
from flexray.sink.records.damage import DamageError
from flexray.sink.run.rebuild import Remains


class NoRunError(OutputError):
    """The folder contains neither a run nor rows of one."""


def load_run(folder: OutputFolder) -> AnyRecord:
    """The run record of an output folder.

    Raises:
        NoRunError: there is no run.
        OutputError: the record cannot be read.
        DamageError: the record cannot be trusted, or it is lost but other files of the run exist.
    """
    path = folder.where(RUN_FILE)
    try:
        found = folder.read_if_there(RUN_FILE)
        remains = Remains.of(folder) if found is None else None
    except OSError as e:
        raise OutputError(f"{path}: cannot be read: {e}") from e
    if found is not None:
        return parse_run(found, path)
    if remains and remains.hold_rows:
        raise DamageError(path, f"is missing, although {remains}", RunRecord.advice, "run_record_missing")
    raise NoRunError(f"{folder}: holds no run (there is no {RUN_FILE}). Give the output folder of a run.")


def discard_run(folder: OutputFolder) -> bool:
    """Delete the files that a run has written in this folder, and no others. The run record is deleted last,
    so an interrupted discard leaves a run with fewer commits, never files without a run. The quarantine is
    kept.

    Returns:
        Whether there was a run.

    Raises:
        OutputError: a file cannot be listed or deleted.
    """
    try:
        names = folder.list()
        if RUN_FILE not in names and not Remains.of(folder).hold_rows:
            return False
        for name in folder.sizes(MANIFEST_FOLDER):
            if is_manifest_file(name) or is_leftover(name):
                folder.remove(f"{MANIFEST_FOLDER}/{name}")
        for name in folder.sizes(DATA_FOLDER):
            if shard_of_data_file(name) or is_leftover(name):
                folder.remove(f"{DATA_FOLDER}/{name}")
        for name in folder.sizes(PLAN_FOLDER):
            if is_plan_file(name) or is_leftover(name):
                folder.remove(f"{PLAN_FOLDER}/{name}")
        for name in (OLD_PLAN_FILE, RUN_FILE):
            if name in names:
                folder.remove(name)
        return True
    except OSError as e:
        raise OutputError(f"{folder}: the earlier run cannot be discarded: {e}") from e
