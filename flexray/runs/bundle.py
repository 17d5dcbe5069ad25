"""What a job brings along to a cluster: flexray as it is installed here, recipes and plug-ins.

It is one archive. Ray unpacks it on each node as the job's current folder, from which Python imports first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import yaml

from flexray.config import RunConfig
from flexray.config.load import parse_config
from flexray.config.recipe import RECIPE_ENDINGS, read_recipe
from flexray.errors import ConfigError
from flexray.runs.fingerprint import COMMIT_FILE, PACKAGE, find_commit

PLUGINS = "_plugins"
"""Folder of the plug-ins that do not lie below the current folder."""


class Bundle:
    """Files of a job, by their path in its folder.

    Attributes:
        files: their contents.
    """

    def __init__(self) -> None:
        self.files = {
            f"{PACKAGE.name}/{path.relative_to(PACKAGE).as_posix()}": path.read_bytes()
            for path in PACKAGE.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        if commit := find_commit(PACKAGE):
            self.files[f"{PACKAGE.name}/{COMMIT_FILE}"] = commit.encode()

    def add_recipe(self, paths: Sequence[str], overrides: Sequence[str]) -> tuple[str, RunConfig]:
        """Add recipes, those that they extend and overrides as one file, with the plug-ins that it names.

        Returns:
            Its path in the job's folder, and the checked configuration.

        Raises:
            ConfigError: as `load_config`.
        """
        tree = read_recipe(paths, overrides)
        config = parse_config(tree, source=", ".join(paths))
        if config.plugins:
            tree = tree | {"plugins": [*map(self.add_plugin, config.plugins)]}
        name = PurePosixPath(paths[-1]).name
        return self._add(
            name if name.endswith(RECIPE_ENDINGS) else f"{name}.yaml",
            yaml.safe_dump(tree, sort_keys=False).encode(),
        ), config

    def add_plugin(self, name: str) -> str:
        """Add a plug-in's file.

        Returns:
            Its name in the job, which is part of a run's fingerprint: the same if it is a module, or a file
            below the current folder.

        Raises:
            ConfigError: the file cannot be read.
        """
        if not name.endswith(".py"):
            return name
        path = Path(name).expanduser()
        try:
            content = path.read_bytes()
        except OSError as e:
            raise ConfigError(f"plug-in {name}: cannot be read: {e}. Name a Python file that is here.") from e
        place = Path(os.path.normpath(path)).as_posix()
        is_below = not path.is_absolute() and not place.startswith(os.pardir)
        if is_below and self.files.setdefault(place, content) == content:
            return name
        return self._add(f"{PLUGINS}/{path.name}", content)

    def write(self, path: Path) -> None:
        """Write the archive. The same files give the same bytes, so that Ray uploads and keeps it once."""
        with ZipFile(path, "w") as archive:
            for name, content in sorted(self.files.items()):
                archive.writestr(ZipInfo(name), content, ZIP_DEFLATED)  # with no time of its own

    def _add(self, place: str, content: bytes) -> str:
        """Add a file under this path, or one with a number if another file has it."""
        path, number = PurePosixPath(place), 1
        while self.files.setdefault(place, content) != content:
            number += 1
            place = str(path.with_stem(f"{path.stem}-{number}"))
        return place
