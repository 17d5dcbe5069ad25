"""A start is refused where it is known that the installed packages cannot do it, and only there."""

from importlib import metadata

import pytest
import torch

from flexray.errors import ConfigError
from flexray.pipeline.software import check_software, is_on_cpu
from flexray.runs.job import check_job
from flexray.sink import OutputFolder


@pytest.fixture
def config_for(config_of, monkeypatch):
    """The configuration of a run; `device` is the model's."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def config_for(device, *, backend="flex", address=None):
        return config_of(model={"device": device}, engine={"backend": backend}, ray={"address": address})

    return config_for


@pytest.fixture
def torch_211(monkeypatch):
    """An installed torch whose FlexAttention is broken on a CPU, as its metadata tell."""
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.11.0" if name == "torch" else version(name))


def test_a_run_on_a_cpu_is_refused_with_a_flexattention_that_is_broken_there(config_for, torch_211):
    config = config_for("cpu")
    with pytest.raises(ConfigError, match=r"torch 2\.11\.0 cannot be trusted"):
        check_job(config, OutputFolder(config.output))


def test_what_may_be_on_a_gpu_or_does_without_flex_is_not_refused(config_for, torch_211):
    for config in (
        config_for("cuda"),
        config_for("auto", address="head:6379"),
        config_for("cpu", backend="sdpa"),
    ):
        assert check_software(config) == ()
    assert check_software(config_for("cpu"), on_cpu=False) == ()


def test_it_is_on_a_cpu_if_told_so_or_if_this_machine_has_no_gpu_and_is_all_there_is(config_for, monkeypatch):
    assert is_on_cpu(config_for("cpu", address="head:6379"))
    assert not is_on_cpu(config_for("cuda"))
    assert is_on_cpu(config_for("auto")) != torch.cuda.is_available()
    assert not is_on_cpu(config_for("auto", address="head:6379"))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert not is_on_cpu(config_for("auto"))
