"""Whether each node of a cluster has what a run needs, the same as the others, before any row is answered.

Model, adapters and output are meant to lie on storage that all nodes see, flexray and plug-ins to be the same
everywhere. But a mount may be missing, a copy old, and a cache of the Hugging Face hub is each machine's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from flexray.config import RunConfig
from flexray.config.plugins import load_plugins, plugin_digests
from flexray.data import list_files
from flexray.errors import ConfigError, ModelError, OutputError, UserError, first_few
from flexray.models.hub import files_of, hub_model, model_folder
from flexray.pipeline.each_node import ask_each_node
from flexray.pipeline.failures import Failure
from flexray.pipeline.nodes import find_nodes
from flexray.pipeline.ray_connection import is_for_a_cluster
from flexray.runs.fingerprint import adapter_digest, code_version, file_digests
from flexray.sink import NoRunError, OutputFolder, load_run


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a process sees of a run's needs."""

    source_sha256: str
    """Of flexray's own code, as CodeVersion has it."""
    model: Mapping[str, bytes]
    """Digests of the model's files."""
    adapters: tuple[str, ...]
    plugins: Mapping[str, str]
    """Digests by the names in the recipe."""
    fingerprint: str
    """Of the run in the output folder."""


def check_nodes(config: RunConfig) -> None:
    """Compare what each node that is there and may work sees with what this process sees. A Ray that this
    process has started on this machine sees the same, and is not asked.

    Args:
        config: pinned, so that all nodes look for the same commits and folders. Its run is planned.

    Raises:
        UserError: nodes lack something, or have something else. The message names nodes, what it is, and
            what to do.
    """
    if not is_for_a_cluster(config) and len(find_nodes()) == 1:
        return
    here = look(config)
    faults: dict[str, list[str]] = {}
    kinds: list[type[UserError]] = []
    for node, seen in ask_each_node(partial(look, config)).items():
        fault = _fault(seen) if isinstance(seen, Failure) else difference(config, here, seen)
        if fault is not None:
            kinds.append(type(fault))
            faults.setdefault(str(fault), []).append(node)
    if faults:
        raise kinds[0]("\n".join(f"{_named(nodes)}: {fault}" for fault, nodes in faults.items()))


def look(config: RunConfig) -> Seen:
    """What this process sees.

    Raises:
        UserError: it does not see something, or cannot read it.
    """
    load_plugins(config.plugins)
    path = config.model.path
    folder = model_folder(path)  # raises for a name that the cache lacks
    if hub_model(path) is None:
        _need_folder("model.path", path)
    for adapter in config.model.lora:
        _need_folder("model.lora", adapter)
    if config.data.hub is not None:
        list_files(config.data)
    try:
        run = load_run(OutputFolder(config.output))
    except NoRunError as e:
        raise OutputError(
            f"output: {OutputFolder(config.output)}: the run that the driver has planned is not to be seen "
            "there. Mount the storage, or give an output that every node sees under the same path, or a URL."
        ) from e
    return Seen(
        source_sha256=code_version().source_sha256,
        model=file_digests(folder, files_of(path)),
        adapters=tuple(map(adapter_digest, config.model.lora)),
        plugins=plugin_digests(config.plugins),
        fingerprint=run.fingerprint,
    )


def _need_folder(key: str, path: str) -> None:
    """`path`: absolute."""
    if not os.path.isdir(path):
        raise ModelError(
            f"{key}: {path}: no such folder there. Mount the storage or copy the folder there, or give one "
            "that every node sees under the same path."
        )


def _fault(failure: Failure) -> UserError:
    error = replace(failure, host="").error()  # whose node is named by `check_nodes`
    return error if isinstance(error, UserError) else OutputError(str(error))


def difference(config: RunConfig, here: Seen, there: Seen) -> UserError | None:
    """What is wrong with a node that sees `there`, where the driver sees `here`; None: nothing."""
    if there.source_sha256 != here.source_sha256:
        return ConfigError(
            "another flexray is installed there than the driver's: the digest of its code is "
            f"{there.source_sha256[:12]}, not {here.source_sha256[:12]}. Install the same one there, or let "
            "`flexray submit` bring it."
        )
    if there.plugins != here.plugins:
        names = [name for name in config.plugins if there.plugins[name] != here.plugins[name]]
        return ConfigError(f"plugins: {first_few(names)}: not the driver's file. Copy it there again.")
    if there.model != here.model:
        return ModelError(
            f"model.path: {config.model.path}: not the driver's model: "
            f"{first_few(_unlike(here.model, there.model))}. Copy the model there again, or give a folder "
            "that every node sees."
        )
    for adapter, ours, theirs in zip(config.model.lora, here.adapters, there.adapters, strict=True):
        if ours != theirs:
            return ModelError(
                f"model.lora: {adapter}: not the driver's adapter. Copy it there again, or give a folder "
                "that every node sees."
            )
    if there.fingerprint != here.fingerprint:
        return OutputError(
            f"output: {OutputFolder(config.output)}: not the driver's folder: it holds another run. Give an "
            "output that every node sees under the same path, or a URL."
        )
    return None


def _unlike(here: Mapping[str, bytes], there: Mapping[str, bytes]) -> list[str]:
    """Which files differ, and how."""
    unlike = [name for name in sorted(here.keys() | there.keys()) if here.get(name) != there.get(name)]
    kinds = {(True, True): "differs", (True, False): "is missing", (False, True): "is extra"}
    return [f"{name} {kinds[name in here, name in there]}" for name in unlike]


def _named(nodes: list[str]) -> str:
    """
    >>> _named(["a (10.0.0.1)", "b (10.0.0.2)"])
    'nodes a (10.0.0.1), b (10.0.0.2)'
    """
    return f"node{'s' * (len(nodes) > 1)} {', '.join(nodes)}"
