"""Plug-ins: modules that register methods, data set adapters or metrics when they are imported.

A recipe names them (`plugins: [my_package.methods, ./metrics.py]`). An installed package has them as entry
points of the group `flexray.methods`, `flexray.adapters` or `flexray.metrics`. Importing a module runs
its code: name only what you trust.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from flexray.errors import ConfigError


def load_plugins(names: Sequence[str]) -> None:
    """Import modules, each only once in a process.

    Args:
        names: dotted module names, or paths of Python files (which end in .py).

    Raises:
        ConfigError: a module that is not there, or that fails when it is imported.
    """
    for name in names:
        try:
            _import(name)
        except ConfigError:
            raise
        except Exception as e:  # it is other people's code
            raise ConfigError(
                f"plugins: {name!r} cannot be imported: {type(e).__name__}: {e}. Name a Python file that "
                "every node sees, or a module that is installed on every node."
            ) from e


def plugin_digests(names: Sequence[str]) -> dict[str, str]:
    """The sha256 of each plug-in's source file, by the name in the recipe; "" if it has no file."""
    found = {}
    for name in names:
        file = getattr(_import(name), "__file__", None)
        found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    return found


def load_entry_points(group: str, register: Callable[[str, Any], None]) -> None:
    """Register the entry points that installed packages have in the group `flexray.<group>`."""
    for entry in metadata.entry_points(group=f"flexray.{group}"):
        try:
            found = entry.load()
        except Exception as e:
            raise ConfigError(
                f"the entry point {entry.name!r} of flexray.{group} ({entry.value}) cannot be loaded: "
                f"{type(e).__name__}: {e}. Repair or uninstall its package."
            ) from e
        register(entry.name, found)


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).expanduser().resolve()
    module_name = f"flexray_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    if not path.is_file():
        raise ConfigError(
            f"plugins: {name!r}: no such file (looked for {path}). Name one that every node sees."
        )
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
