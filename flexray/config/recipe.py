"""A recipe: YAML files, the files they extend and overrides, merged into one tree.

    extends: [data/webqa.yaml, models/llama-3.2-1b.yaml]

A later file overrides an earlier one, and the file that extends them overrides them all. Sections are merged
key by key; any other value is replaced as a whole. Names are relative to the folder of the extending file;
`config/paths.py` says what other paths are relative to.

A few lines of YAML can mean billions of values (aliases of aliases), which Python holds as one list many
times over. So no code here or later visits all values without a limit.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from copy import copy
from typing import Any

import yaml

from flexray.config.paths import resolve_paths
from flexray.errors import ConfigError, shown
from flexray.storage import open_file, starting

RECIPE_ENDINGS = (".yaml", ".yml")
MAX_BYTES = 4 * 2**20
MAX_DEPTH = 50
MAX_MERGED = 100_000
SHOWN = 200  # characters of an override


def read_recipe(paths: Sequence[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The tree of YAML files and those they extend, with `a.b=value` overrides (values are YAML).

    Raises:
        ConfigError: a file is missing, no YAML mapping, or extends itself; an override has no `=`.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"{overrides}: a list of overrides is needed, such as ['data.limit=10'].")
    tree: dict[str, Any] = {}
    known: dict[str, dict[str, Any]] = {}
    for path in paths:
        tree = _merge(tree, _read(path, (), known))
    for override in overrides:
        _apply(tree, override)
    return tree


def _read(path: str, extended_by: tuple[str, ...], known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The tree of a file and those that it extends.

    Args:
        known: trees by place: several files may extend the same one, which is read once.
    """
    place = _normal(path)
    if place in map(_normal, extended_by):
        way = " -> ".join((*extended_by, path))
        raise ConfigError(f"{path}: extends itself: {way}. Remove one `extends`.")
    if place in known:
        return known[place]
    said = f" (extended by {extended_by[-1]})" if extended_by else ""
    if extended_by and "://" not in path and os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"{path}: is no regular file{said}. Give a YAML file.")
    try:
        with starting(), open_file(path) as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: more than {MAX_BYTES >> 20} MiB, which is no recipe{said}.")
        tree = _parse(data.decode("utf-8-sig"))
    except FileNotFoundError as e:
        raise ConfigError(
            f"{path}: no such configuration file{said}. Give a path or URL of a YAML file."
        ) from e
    except ConfigError:
        raise
    except Exception as e:  # each file system raises its own types for a bad URL, key or permission
        raise ConfigError(f"{path}: cannot be read as YAML{said}: {e}") from e
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of sections is expected{said}, found {type(tree).__name__}.")
    tree = resolve_paths(tree, path)
    merged: dict[str, Any] = {}
    for name in _extends(tree.pop("extends", []), path):
        merged = _merge(merged, _read(_beside(path, name), (*extended_by, path), known))
    known[place] = _merge(merged, tree)
    return known[place]


def _extends(value: Any, path: str) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(
            f"{path}: extends: the name of a file or a list of names is needed, not {shown(value)}."
        )
    return names


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    done: dict[tuple[int, int], dict[str, Any]] = {}  # aliases may repeat a section many times

    def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
        if (key := (id(base), id(over))) not in done:
            done[key] = merged = dict(base)
            for name, value in over.items():
                below = base.get(name)
                if isinstance(value, dict) and isinstance(below, dict):
                    merged[name] = merge(below, value)
                else:
                    merged[name] = value
        return done[key]

    return merge(base, over)


def _beside(path: str, name: str) -> str:
    if "://" in name or os.path.isabs(name):
        return name
    return posixpath.join(posixpath.dirname(path), name)


def _normal(path: str) -> str:
    protocol, separator, rest = path.rpartition("://")
    return protocol + separator + posixpath.normpath(rest) if separator else os.path.abspath(path)


def _apply(tree: dict[str, Any], override: str) -> None:
    said = f"--set {override if len(override) <= SHOWN else override[:SHOWN] + '...'}"
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{said}: expected section.key=value")
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        # a copy, since an alias may make another section the same object
        child = node[parent] = copy(node.get(parent, {}))
        if not isinstance(child, dict):
            raise ConfigError(f"{said}: {parent!r} is a value, not a section")
        node = child
    try:
        value = _parse(text)
    except (yaml.YAMLError, ValueError) as e:
        raise ConfigError(f"{said}: the value is no YAML: {e}") from e
    placed: Any = {leaf: value}
    for parent in reversed(parents):
        placed = {parent: placed}
    placed = resolve_paths(placed, "--set")
    for part in (*parents, leaf):
        placed = placed[part]
    node[leaf] = placed


def _parse(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError; ValueError for an impossible value, such as a date."""
    try:
        return _Loader(text).get_single_data()
    except RecursionError as e:
        raise yaml.YAMLError(f"nested more than {MAX_DEPTH} levels deep") from e


class _Loader(yaml.SafeLoader):
    """A loader that refuses duplicate keys, a value within itself, too deep nesting, and merges (<<) of too
    many keys, which YAML allows."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depths: dict[int, int] = {}  # of complete nodes, by id
        self._merged = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.CollectionNode) and not is_alias:
            inner = node.value
            if isinstance(node, yaml.MappingNode):
                self._check_keys(node)
                inner = [part for pair in node.value for part in pair]
            depth = 1 + max((self._depths.get(id(part), 0) for part in inner), default=0)
            if depth > MAX_DEPTH:
                raise self._fault(node, f"nested more than {MAX_DEPTH} levels deep")
            self._depths[id(node)] = depth
        elif isinstance(node, yaml.CollectionNode) and id(node) not in self._depths:
            raise self._fault(node, "an alias (*) stands within what it stands for")
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)  # PyYAML before 6.0.4 also copies pairs that are there already
        self._merged += len(node.value)
        if self._merged > MAX_MERGED:
            raise self._fault(node, f"merges (<<) of more than {MAX_MERGED} keys")

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, LookupError, TypeError) as e:  # of a date, or an explicit tag
            kind = node.tag.rpartition(":")[2]
            raise self._fault(node, f"{shown(node.value)} is no {kind} ({e}). Put it in quotes") from e

    def _text(self, node: yaml.ScalarNode) -> str:
        value: str = self.construct_scalar(node)
        try:  # JSON spells a character beyond 16 bits as a pair of surrogates
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            return value

    def _decimal(self, node: yaml.ScalarNode) -> Any:
        if re.fullmatch(r"[-+]?0[0-9_]+|.*:.*", node.value):
            raise self._fault(
                node, f"{node.value} is another number in YAML, octal or of base 60. Write a decimal number"
            )
        return self.construct_yaml_int(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise self._fault(key, f"the key {shown(key.value)} is there twice. Leave one")
                seen.add((key.tag, key.value))

    def _fault(self, node: yaml.Node, problem: str) -> yaml.YAMLError:
        return yaml.composer.ComposerError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader._decimal)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader._text)
