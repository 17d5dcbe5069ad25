"""Whether a run that is gone on with reads the commits of the hub that it began with.

The fingerprint has the digests of the files, so that a model by its name on the hub is the same as its copy
in a folder. Digests of weights are made of samples, though; a commit says more, where both starts have one.
"""

from __future__ import annotations

from typing import Any

from flexray.storage.hub import HubName, Kind


def moved_commits(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """A line for each repository that two configurations, as records hold them, have at different commits.

    >>> there, here = ({"model": {"path": f"owner/name@{digit * 40}"}} for digit in "ab")
    >>> [line[:24] for line in moved_commits(there, here)]
    ['model.path: owner/name@a']
    """
    lines = []
    theirs, ours = _commits(there), _commits(here)
    for key in theirs.keys() & ours.keys():
        old, new = theirs[key], ours[key]
        if old.repo == new.repo and old.revision != new.revision:
            lines.append(
                f"{key}: {old} -> {new}. To go on with the commit that the run began with, give "
                f"{old.revision} as the revision"
            )
    return sorted(lines)


def _commits(config: dict[str, Any]) -> dict[str, HubName]:
    data = config.get("data", {}).get("hub") or {}
    kinds: dict[str, tuple[str, Kind]] = {
        "model.path": (str(config.get("model", {}).get("path")), "model"),
        "data.hub": (f"{data.get('name')}@{data.get('revision')}", "dataset"),
    }
    names = {key: HubName.parse(text, kind) for key, (text, kind) in kinds.items()}
    return {key: name for key, name in names.items() if name is not None and name.is_pinned}
