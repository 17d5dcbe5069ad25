"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import ray

import flexray
from flexray.config import RayConfig
from flexray.types import ConfigError

PROJECT = Path(flexray.__file__).resolve().parent.parent


def connect(config: RayConfig) -> None:
    """Connect to the configured cluster; idempotent.

    A job submitted to a cluster finds it by itself (RAY_ADDRESS is set there). Otherwise, and if no
    address is configured, Ray is started here, bound to loopback, and ends with this process.

    Raises:
        ConfigError: no cluster answers at the configured address.
    """
    if ray.is_initialized():
        return
    # Ray copies the whole working directory to its workers only if asked; they import flexray from where
    # it is installed, or from the project's folder if the command was started elsewhere
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))}}
    logging.getLogger("ray.data").addFilter(lambda r: "Progress bars disabled" not in r.getMessage())
    address = config.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            # else Ray's core warns of how Ray Data itself passes an actor's arguments
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            ray.init(
                num_cpus=config.num_cpus,
                object_store_memory=config.object_store_mb and config.object_store_mb * 2**20,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=environment,
            )
    except ConnectionError as e:
        raise ConfigError(f"ray.address: no Ray cluster answers at {address}: {e}") from e
