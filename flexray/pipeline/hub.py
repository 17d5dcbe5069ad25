"""What a recipe names of the Hugging Face hub, brought into the cache and pinned to commits.

A run works with a pinned configuration: all of its processes read the same commit of the model and of the
data set, wherever a branch moves meanwhile, and the run's record has them.
"""

from __future__ import annotations

import os.path
from collections.abc import Collection

from flexray.config import RunConfig
from flexray.config.data import HubDataSet
from flexray.console.progress import LogLine
from flexray.data.hub import download_data_set, folder_of, pin_data_set
from flexray.models.hub import download_model, hub_model, pin_model


def download(config: RunConfig, log: LogLine = print) -> None:
    """Bring the model and the data sets that a recipe names from the hub into this machine's cache.

    Raises:
        ConfigError: the hub cannot be reached, or does not have one of them; or HF_HUB_OFFLINE is set.
    """
    if hub_model(config.model.path) is not None:
        log(f"model.path: {config.model.path}: downloading what the cache does not have")
        download_model(config.model.path)
    for key, source in _data_sets(config).items():
        log(f"{key}: {source}: downloading what the cache does not have")
        download_data_set(source)


def pin(config: RunConfig) -> RunConfig:
    """The configuration with commits in the place of branches and tags, and folders as absolute paths: a
    worker may have another working directory.

    Raises:
        ConfigError: the cache does not have the model or a data set.
    """
    return pin_data_sets(pin_model_paths(config))


def pin_model_paths(config: RunConfig) -> RunConfig:
    """`pin` for the model and its adapters."""
    path = config.model.path
    path = os.path.abspath(path) if hub_model(path) is None else pin_model(path)
    lora = tuple(map(os.path.abspath, config.model.lora))
    model = config.model.model_copy(update={"path": path, "lora": lora})
    return config.model_copy(update={"model": model})


def pin_data_sets(config: RunConfig) -> RunConfig:
    """`pin` for the data set and that of the few-shots."""
    changes: dict[str, object] = {}
    if config.data.hub is not None:
        changes["data"] = config.data.model_copy(update={"hub": pin_data_set(config.data.hub)})
    drawn_from = config.prompt.few_shot_data
    if drawn_from is not None and drawn_from.hub is not None:
        drawn_from = drawn_from.model_copy(update={"hub": pin_data_set(drawn_from.hub)})
        changes["prompt"] = config.prompt.model_copy(update={"few_shot_data": drawn_from})
    return config.model_copy(update=changes)


def notes_of(config: RunConfig, keys: Collection[str]) -> list[str]:
    """A line for each commit that a pinned configuration names under these keys."""
    found = {} if hub_model(config.model.path) is None else {"model.path": config.model.path}
    sources = found | _data_sets(config)
    return [f"{key}: {source}" for key, source in sources.items() if key in keys]


def _data_sets(config: RunConfig) -> dict[str, HubDataSet]:
    """The data sets of the hub, without folders, by their keys."""
    found = {"data.hub": config.data.hub}
    if config.prompt.few_shot_data is not None:
        found["prompt.few_shot_data.hub"] = config.prompt.few_shot_data.hub
    return {key: hub for key, hub in found.items() if hub is not None and folder_of(hub) is None}
