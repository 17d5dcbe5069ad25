"""What differs between the releases of torch, transformers and Ray. Only this module names their versions.

`make test-compat` runs the tests with the oldest, the newest and some between; docs/compatibility.md has what
came of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from flexray.errors import ConfigError

if TYPE_CHECKING:  # they take seconds to import
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Package:
    """Releases of a package."""

    oldest: str
    """Older ones are refused."""
    newest: str
    """That the tests were run with; of newer ones it is said that they were not."""
    why: str
    """What is wrong with older ones."""
    broken: tuple[tuple[str, str], ...] = ()
    """Specifiers of others that are refused, and why."""


PACKAGES = {
    "torch": Package("2.11", "2.14.1", "their FlexAttention was never tried with this mask"),
    "transformers": Package("4.55.2", "5.24.0", "their attention interface was never tried"),
    "ray": Package("2.55", "2.60.0", "2.49 to 2.54 unpickle what a data file's metadata hold on opening it"),
}


def check_versions(version_of: Callable[[str], str] = metadata.version) -> list[str]:
    """What is to be said of the installed versions: a line for each that is newer than any tested one.

    Raises:
        ConfigError: one that is known not to work, or too old.
    """
    return [line for name, package in PACKAGES.items() for line in _check(name, package, version_of(name))]


def _check(name: str, package: Package, found: str) -> Iterator[str]:
    version = Version(Version(found).public)
    for specifier, why in ((f"<{package.oldest}", package.why), *package.broken):
        if SpecifierSet(specifier, prereleases=True).contains(version):
            raise ConfigError(
                f"{name} {found} cannot be used ({specifier}: {why}). Install {name} {package.oldest} to "
                f"{package.newest}, or what constraints.txt names."
            )
    if version > Version(package.newest):
        yield (
            f"note: {name} {found} is newer than any that flexray was tested with ({package.newest}); "
            "`flexray doctor` compares its attention with a slow one on this machine"
        )


def check_flex(device: str, torch_version: str | None = None) -> None:
    """Refuse compiled FlexAttention where it is known to be broken.

    Raises:
        ConfigError: on a CPU before torch 2.13. Kernels that 2.11 compiled and kept for one number of threads
            are taken for another, and then write past their buffers.
    """
    found = torch_version or metadata.version("torch")
    if device == "cpu" and Version(found) < Version("2.13"):
        raise ConfigError(
            f"torch {found} cannot be trusted with FlexAttention on a CPU: its compiled kernels may write "
            "past their buffers. Install torch 2.13, or set engine.backend to sdpa, which has the same mask."
        )


def calls_at_once(calls: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """How Ray Data is told of the calls of `map_batches` that an actor has at once: arguments of
    `ActorPoolStrategy`, and of `map_batches`. Ray 2.55 knows only the latter."""
    from ray.data import ActorPoolStrategy

    if "max_concurrent_calls_per_actor" in inspect.signature(ActorPoolStrategy).parameters:
        return {"max_concurrent_calls_per_actor": calls}, {}
    return {}, {"max_concurrency": calls}


def transformers_before(version: str) -> bool:
    """Whether the installed transformers is older than this."""
    return Version(metadata.version("transformers")) < Version(version)


def dtype_argument(dtype: torch.dtype) -> dict[str, Any]:
    """`from_pretrained`'s argument: `dtype`, which before transformers 4.56 is `torch_dtype`."""
    return {"torch_dtype" if transformers_before("4.56") else "dtype": dtype}


def rope_parameters(config: PreTrainedConfig) -> dict[str, Any]:
    """A configuration's RoPE: one dictionary since transformers 5, before that `rope_theta` and
    `rope_scaling`."""
    if transformers_before("5.0.0rc0"):
        return {"rope_theta": config.rope_theta, **(getattr(config, "rope_scaling", None) or {})}
    return config.rope_parameters or {}


def rope_arguments(rope: dict[str, Any]) -> dict[str, Any]:
    """A configuration's arguments for such RoPE parameters: the inverse of `rope_parameters`."""
    if not transformers_before("5.0.0rc0"):
        return {"rope_parameters": rope}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    plain = rope.get("rope_type", "default") == "default"
    return {"rope_theta": rope.get("rope_theta", 10000.0), "rope_scaling": None if plain else scaling}


def adopt_rope(config: PreTrainedConfig, tree: dict[str, Any]) -> None:
    """Give a configuration the RoPE of its config.json, if transformers 5 wrote that: transformers 4 does not
    know the key, and would rotate by its own default."""
    if transformers_before("5.0.0rc0") and (rope := tree.get("rope_parameters")):
        for name, value in rope_arguments(rope).items():
            setattr(config, name, value)


def tokenizer_class(tree: dict[str, Any], tokenizer_json: Path) -> type[PreTrainedTokenizerBase] | None:
    """The class for a tokenizer_config.json ({}: there is none), where the installed transformers does not
    find it by itself: transformers 5 writes a name for fast tokenizers that transformers 4 does not know, and
    of a tokenizer.json alone transformers 4 makes a Llama 2's, with tokens of its own. None: it finds it."""
    named = tree.get("tokenizer_class") == "TokenizersBackend"
    if transformers_before("5.0.0rc0") and (named or (not tree and tokenizer_json.is_file())):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    return None
