import pytest

from flexray.errors import ConfigError
from flexray.preflight.plan import devices
from flexray.preflight.plan.devices import GPUS, _look_up, find_device
from tests.plans import make_plan


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("H100", "H100-80GB"),
        ("h100 80gb", "H100-80GB"),
        ("NVIDIA H100", "H100-80GB"),
        ("A100-40", "A100-40GB"),
        ("A100 80GB", "A100-80GB"),
        ("L40S", "L40S-48GB"),
        ("A10", "A10-24GB"),
        ("L4", "L4-24GB"),
        ("T4", "T4-16GB"),
    ],
)
def test_gpus_go_by_short_names(config_of, name, known):
    device = find_device(config_of(), name, None)
    assert (device.name, device.gpu) == (known, GPUS[known])


def test_a_name_of_two_gpus_is_refused_with_both(config_of):
    with pytest.raises(ConfigError, match="may be A100-80GB or A100-40GB"):
        find_device(config_of(), "A100", None)


@pytest.mark.parametrize("name", ["B9000", "", "GB"])
def test_an_unknown_name_is_refused_with_those_that_are_known(config_of, name):
    with pytest.raises(ConfigError, match=r"is not known; known: H200-141GB, .*--gpu-memory"):
        find_device(config_of(), name, None)


@pytest.mark.parametrize(
    ("driver", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-80GB"),
        ("Tesla T4", "T4-16GB"),
        ("NVIDIA A10G", "A10G-24GB"),
        ("NVIDIA H200", "H200-141GB"),
        ("NVIDIA GeForce RTX 9999", None),
    ],
)
def test_the_peak_of_a_gpu_is_found_by_what_its_driver_calls_it(driver, known):
    found = _look_up(driver)
    assert (found and found.peak_16_bit) == (known and GPUS[known].peak_16_bit)


def test_a_given_memory_stands_for_the_gpus_own(config_of):
    device = find_device(config_of(), "H100", 40)
    assert (device.memory, device.peak("bfloat16")) == (40 * 2**30, 989e12)
    assert find_device(config_of(), None, 24).peak("bfloat16") is None


def test_a_run_on_the_cpus_has_their_memory(config_of):
    device = find_device(config_of(model={"device": "cpu"}), None, None)
    assert not device.is_gpu
    assert device.memory > 2**28


def test_a_model_for_the_cpus_of_a_cluster_is_not_compared_with_this_machine(config_of, monkeypatch):
    monkeypatch.setattr(devices, "ram_bytes", lambda: 1)
    config = config_of(model={"device": "cpu"}, ray={"num_cpus_per_actor": 1000})
    assert not make_plan(config).ready
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    plan = make_plan(config)
    assert (plan.device.is_gpu, plan.device.memory) == (False, None)
    assert plan.ready, plan.problems
    assert plan.memory is not None
