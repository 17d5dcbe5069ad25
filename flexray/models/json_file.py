"""The JSON files of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flexray.errors import ModelError


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelError if the file holds none."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:  # ValueError: no JSON, or no UTF-8
        raise ModelError(f"{file}: cannot be read as JSON: {e}. It may be cut short: copy it again.") from e
    if not isinstance(tree, dict):
        raise ModelError(f"{file}: a JSON object is expected, found {type(tree).__name__}.")
    return tree
