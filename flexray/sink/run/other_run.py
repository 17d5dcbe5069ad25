"""Whether a start is of the run that a folder holds, and what differs if it is not."""

from __future__ import annotations

import json
from typing import Any

from flexray.config.load import rename_keys
from flexray.errors import OutputError
from flexray.sink.folder import OutputFolder
from flexray.sink.records import CODE_OF_0_1, AnyRecord, CodeVersion, RunRecord, fingerprint
from flexray.sink.records.differences import differences
from flexray.sink.records.rows import ROW_SCHEMA, columns_of
from flexray.sink.records.sealed import canonical_json
from flexray.sink.run.hub_commits import moved_commit
from flexray.storage import redact

ELSE = "Use another output folder, or discard the earlier run with --fresh (make: FRESH=1)."
VALUES_KEY = "values_version"
"""The key of `parts` that may differ with --allow-code-change. Records of flexray 0.1 do not have it."""


def other_parts(run: AnyRecord, parts: dict[str, Any]) -> list[str]:
    """The differences between a run and a start with these `parts` (see `open_run`), one line each; [] if at
    most the values version differs."""
    if run.fingerprint == fingerprint(parts):
        return []
    # Both sides are redacted, because a message must not show credentials.
    there, here = rename_keys(run.parts)[0], json.loads(canonical_json(redact(parts)))
    version = differences(there.pop(VALUES_KEY, None), here.pop(VALUES_KEY, None), VALUES_KEY)
    lines = differences(there, here)
    if lines or version:
        return lines and lines + version
    return ["a URL's credentials or query"]


def refuse_other_run(
    folder: OutputFolder, run: RunRecord, parts: dict[str, Any], config: dict[str, Any]
) -> None:
    """Raise OutputError, with each difference, if a start is not of the folder's run. The values version may
    differ."""
    lines = other_parts(run, parts)
    if any(line.startswith("model.digest") for line in lines):
        then, now = run.config["model"]["path"], config["model"]["path"]
        moved = differences(then, redact(now), "model.path") or [f"model: the files of {then} have changed"]
        lines = [*moved, *lines]
    lines += filter(None, [moved_commit(run.config, config)])
    lines += differences(run.row_schema, columns_of(ROW_SCHEMA), "row schema")
    if lines:
        raise OutputError(
            f"{folder}: holds another run, started {run.created}. Differences (there -> here):\n  "
            + "\n  ".join(lines)
            + f"\n{ELSE}"
        )


def other_code(run: AnyRecord, code: CodeVersion | None) -> str:
    """How to say that a run is of another values version than the code."""
    then, now = (
        f"values version {known.values_version} (flexray {known.flexray}"
        f"{known.commit and f', commit {known.commit}'})"
        for known in (run.code or CODE_OF_0_1, code or CODE_OF_0_1)
    )
    return (
        f"holds a run written by flexray {(run.code or CODE_OF_0_1).flexray}, of {then}, but this code is "
        f"of {now}: it may give other answers to the same questions. Finish the run with the flexray that "
        "wrote it, or resume it with this code by --allow-code-change: each manifest names the code that "
        f"computed its rows. {ELSE}"
    )
