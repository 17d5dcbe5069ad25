"""Whether the installed packages can do what a configuration asks for, as far as is known before a start."""

from __future__ import annotations

from flexray.config import RunConfig
from flexray.config.versions import check_versions
from flexray.models.compat import check_flex
from flexray.pipeline.cluster import is_for_a_cluster


def check_software(config: RunConfig, *, on_cpu: bool | None = None) -> tuple[str, ...]:
    """What is to be said of the installed versions.

    Args:
        on_cpu: it is known that the model will be on a CPU. None: what can be known of it here.

    Raises:
        ConfigError: one is known not to work, or not for this.
    """
    notes = tuple(check_versions())
    if config.engine.backend == "flex" and (is_on_cpu(config) if on_cpu is None else on_cpu):
        check_flex("cpu")
    return notes


def is_on_cpu(config: RunConfig) -> bool:
    """Whether it is known that the model will be on a CPU; of a cluster's nodes it is not."""
    if config.model.device != "auto":
        return config.model.device == "cpu"
    if is_for_a_cluster(config):
        return False
    import torch  # after its version has been looked at

    return not torch.cuda.is_available()
