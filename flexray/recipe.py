"""A recipe: YAML files, those they extend and the overrides, merged into one tree.

    extends: [data/webqa.yaml, models/llama-3.2-1b.yaml]

A later file wins over an earlier one, and the file that names them over them all. Sections are merged
key by key; any other value is replaced whole. Names are relative to the folder of the file they stand in.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from typing import Any

import yaml

from flexray.storage import open_file
from flexray.types import ConfigError


def read_recipe(paths: Sequence[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The tree of YAML files and those they extend, with `a.b=value` overrides (values are YAML).

    Raises:
        ConfigError: a file is missing, no YAML mapping, or extends itself; an override has no `=`.
    """
    tree: dict[str, Any] = {}
    for path in paths:
        tree = _merge(tree, _read(path, ()))
    for override in overrides:
        _apply(tree, override)
    return tree


def _read(path: str, extended_by: tuple[str, ...]) -> dict[str, Any]:
    place = _normal(path)
    if place in map(_normal, extended_by):
        way = " -> ".join((*extended_by, path))
        raise ConfigError(f"{path}: extends itself: {way}. Remove one `extends`.")
    said = f" (extended by {extended_by[-1]})" if extended_by else ""
    try:
        with open_file(path) as stream:
            tree = yaml.safe_load(stream.read().decode("utf-8"))
    except FileNotFoundError as e:
        raise ConfigError(
            f"{path}: no such configuration file{said}. Give a path or URL of a YAML file."
        ) from e
    except Exception as e:  # each store raises its own types, for a bad URL, key or permission
        raise ConfigError(f"{path}: cannot be read as YAML{said}: {e}") from e
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of sections is expected{said}, found {type(tree).__name__}.")
    merged: dict[str, Any] = {}
    for name in _extends(tree.pop("extends", []), path):
        merged = _merge(merged, _read(_beside(path, name), (*extended_by, path)))
    return _merge(merged, tree)


def _extends(value: Any, path: str) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{path}: extends: the name of a file or a list of names is needed, not {value!r}.")
    return names


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def _beside(path: str, name: str) -> str:
    if "://" in name or os.path.isabs(name):
        return name
    return posixpath.join(posixpath.dirname(path), name)


def _normal(path: str) -> str:
    protocol, separator, rest = path.rpartition("://")
    return protocol + separator + posixpath.normpath(rest) if separator else os.path.abspath(path)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected section.key=value")
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent!r} is a value, not a section")
        node = child
    try:
        node[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(f"--set {override}: the value is no YAML: {e}") from e
