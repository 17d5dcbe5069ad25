"""Whether a run that is gone on with has the model at the commit of the hub that it began with.

The fingerprint has the digests of the files, so that a model by its name on the hub is the same as its copy
in a folder. Digests of weights are made of samples, though; a commit says more, where both starts have one.
Data may be at a later commit, which may have more rows: changed rows are found by their content.
"""

from __future__ import annotations

from typing import Any

from flexray.storage.hub import HubName


def moved_commit(there: dict[str, Any], here: dict[str, Any]) -> str:
    """A line if two configurations, as records hold them, have the model at different commits; else "".

    >>> there, here = ({"model": {"path": f"owner/name@{digit * 40}"}} for digit in "ab")
    >>> moved_commit(there, here)[:24]
    'model.path: owner/name@a'
    """
    old, new = (HubName.parse(str(config.get("model", {}).get("path")), "model") for config in (there, here))
    if old is None or new is None or not (old.is_pinned and new.is_pinned):
        return ""
    if old.repo != new.repo or old.revision == new.revision:
        return ""
    return (
        f"model.path: {old} -> {new}. To go on with the commit that the run began with, give "
        f"{old.revision} as the revision"
    )
