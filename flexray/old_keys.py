"""Keys of 0.1 that have other names now. They load for one version, with a warning that names the new key."""

from __future__ import annotations

import warnings
from typing import Any

RENAMED = {
    "engine.max_rows": "engine.max_num_seqs",
    "engine.max_prefill_tokens": "engine.max_num_batched_tokens",
    "engine.memory_fraction": "engine.gpu_memory_utilization",
}
"""The old key, and the new one in the same section."""


def renew_keys(tree: dict[str, Any], source: str) -> dict[str, Any]:
    """A configuration tree with new keys in the place of old ones; one warning for all of them.

    >>> renew_keys({"engine": {"max_num_seqs": 8}}, "run.yaml")
    {'engine': {'max_num_seqs': 8}}
    """
    renewed, said = dict(tree), []
    for old, new in RENAMED.items():
        section, key = old.split(".")
        values = renewed.get(section)
        # a section that has both is left alone: the old key is then an unknown one
        if isinstance(values, dict) and key in values and (name := new.partition(".")[2]) not in values:
            renewed[section] = {name if k == key else k: value for k, value in values.items()}
            said.append(f"{old} is now {new}")
    if said:
        warnings.warn(
            f"{source}: {'; '.join(said)}. The old names are gone in 0.3.", FutureWarning, stacklevel=3
        )
    return renewed
