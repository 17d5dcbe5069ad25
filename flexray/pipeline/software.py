"""Check before a run whether the installed versions support what a configuration needs."""

from __future__ import annotations

from flexray.config import RunConfig
from flexray.config.versions import check_versions
from flexray.models.compat import check_flex
from flexray.pipeline.ray_connection import is_for_a_cluster


def check_software(config: RunConfig, *, on_cpu: bool | None = None) -> tuple[str, ...]:
    """Notes about the installed versions.

    Args:
        on_cpu: whether the model will be on a CPU. None: find out with `is_on_cpu`.

    Raises:
        ConfigError: a version is known not to work, or not with this configuration.
    """
    notes = tuple(check_versions())
    if config.engine.backend == "flex" and (is_on_cpu(config) if on_cpu is None else on_cpu):
        check_flex("cpu")
    return notes


def is_on_cpu(config: RunConfig) -> bool:
    """Whether the model will certainly be on a CPU. On a cluster with device "auto" this is not known, so
    False."""
    if config.model.device != "auto":
        return config.model.device == "cpu"
    if is_for_a_cluster(config):
        return False
    import torch  # here, because its version must be checked first

    return not torch.cuda.is_available()
