"""The paths in a recipe: beside it or in the current folder, with ~ and ${VARIABLE}."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from copy import copy
from typing import Any

from flexray.errors import ConfigError

INPUTS = (
    "model.path",
    "model.lora",
    "data.files",
    "data.template_files",
    "data.paraphrase_files",
    "data.ids",
    "prompt.few_shot_data.files",
    "prompt.few_shot_data.template_files",
    "plugins",
)
"""Keys whose values name what is there already."""
OUTPUT = "output"
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def resolve_paths(tree: dict[str, Any], recipe: str) -> dict[str, Any]:
    """The tree of one recipe file with its paths as they are seen from the current folder.

    A relative path of an input is looked for beside the recipe; if it is not there, or the recipe is a URL,
    it is one of the current folder. The output is below the current folder.

    Args:
        recipe: its path or URL.

    Raises:
        ConfigError: an environment variable is not set.
    """
    folder = "" if "://" in recipe else os.path.dirname(recipe)

    def seen(path: str, key: str) -> str:
        path = _with_variables(path, key, recipe)
        links, chained, last = path.rpartition("::")  # of zip://a.jsonl::questions.zip
        if key == OUTPUT or not folder or "://" in last or os.path.isabs(os.path.expanduser(last)):
            return path
        is_glob = glob.has_magic(last)
        beside = os.path.normpath(os.path.join(glob.escape(folder) if is_glob else folder, last))
        there = any(glob.iglob(beside)) if is_glob else os.path.exists(beside)
        return links + chained + beside if there else path

    placed = dict(tree)
    for key in (*INPUTS, OUTPUT):
        for section, name in _sections(placed, key.split(".")):
            value = section[name]
            if isinstance(value, str):
                section[name] = seen(value, key)
            elif isinstance(value, list):
                section[name] = [seen(path, key) if isinstance(path, str) else path for path in value]
    return placed


def _sections(tree: dict[str, Any], parts: list[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """The section that has the key, if it is there; copied, as aliases may share it."""
    *parents, name = parts
    node = tree
    for parent in parents:
        if not isinstance(node.get(parent), dict):
            return
        node[parent] = node = copy(node[parent])
    if name in node:
        yield node, name


def _with_variables(path: str, key: str, recipe: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(
                f"{recipe}: {key}: the environment has no {found[1]}. Set it, or write the path out."
            )
        return os.environ[found[1]]

    return _VARIABLE.sub(value, path)
