"""Models of the Hugging Face hub: which files of a repository make a model, and where they lie.

`model.path` is a folder or a name, `owner/name@revision`; a folder that exists wins. A run pins a name to its
commit, and each of its processes finds that commit in the cache of its own machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from flexray.errors import ConfigError
from flexray.models.weights import INDEX, WEIGHTS
from flexray.storage.hub import HubName, download, find_snapshot, not_there

FILES = (
    "config.json",
    "generation_config.json",
    INDEX,
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
"""What is read of a repository besides its weights. No code, and no pickled weights."""
_WEIGHT_FILE = re.compile(r"[\w.-]+\.safetensors", re.ASCII)


def hub_model(path: str | Path) -> HubName | None:
    """The repository that `model.path` names; None: it is a folder, or cannot be a name."""
    return None if Path(path).is_dir() else HubName.parse(str(path), "model")


def model_folder(path: str | Path) -> Path:
    """The folder of `model.path`: itself, or its snapshot in the cache. A path that is neither a folder nor
    a name is returned as it is, for `check_checkpoint` to refuse.

    Raises:
        ConfigError: it is a name, and the cache does not have the model, or not all of its files.
    """
    name = hub_model(path)
    return Path(path) if name is None else _find(name)


def has_chat_template(path: str | Path) -> bool:
    """Whether the model of `model.path` comes with a chat template; False if it is not there."""
    try:
        folder = model_folder(path)
        if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
            return True
        tokenizer = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (ConfigError, OSError, ValueError):
        return False
    return isinstance(tokenizer, dict) and bool(tokenizer.get("chat_template"))


def pin_model(path: str) -> str:
    """`model.path` with the commit in place of the revision. A folder stays as it is. Raises as
    `model_folder`."""
    name = hub_model(path)
    return path if name is None else str(name.at(_find(name)))


def download_model(path: str) -> None:
    """Bring the model that `model.path` names into the cache; of a folder there is nothing to bring.

    Raises:
        ConfigError: as `download`; or the repository has no weights as safetensors.
    """
    name = hub_model(path)
    if name is None:
        return

    def choose(names: Sequence[str]) -> Sequence[str]:
        if not {WEIGHTS, INDEX}.intersection(names):
            raise ConfigError(
                f"{name}: has neither {WEIGHTS} nor {INDEX}, and weights of other formats are not read. Name "
                "a revision or a repository that has them."
            )
        return FILES

    folder = download(name, choose)
    download(name.at(folder), [WEIGHTS, *_indexed(folder)])


def refuse_code(path: str | Path) -> None:
    """Raise ConfigError if a model of the hub is named: code of a repository is not run from the cache, where
    nobody has looked at it."""
    if (name := hub_model(path)) is not None:
        raise ConfigError(
            f"model.trust_remote_code: code of {name} is not run from the cache. Read it, copy the "
            "repository into a folder, and give that folder as model.path."
        )


def files_of(path: str | Path) -> frozenset[str] | None:
    """The names of a hub model's files that are read, whatever else of the repository is in the cache; may
    hold names that it does not have. None: `path` is a folder, and all of it is the model."""
    if hub_model(path) is None:
        return None
    folder = model_folder(path)
    names = [found.relative_to(folder).as_posix() for pattern in FILES for found in folder.glob(pattern)]
    return frozenset([*names, WEIGHTS, *_indexed(folder)])


def _find(name: HubName) -> Path:
    folder = find_snapshot(name, FILES)
    if not (folder / "config.json").is_file() or not _has_weights(folder):
        raise not_there(name, incomplete=True)
    return folder


def _has_weights(folder: Path) -> bool:
    if (folder / WEIGHTS).is_file():
        return True
    return (folder / INDEX).is_file() and all((folder / file).is_file() for file in _indexed(folder))


def _indexed(folder: Path) -> list[str]:
    """The files that the index names; none if there is no index, or a broken one, which `check_checkpoint`
    refuses."""
    try:
        names = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
        return sorted(name for name in names if _WEIGHT_FILE.fullmatch(name))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
