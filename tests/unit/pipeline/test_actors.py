"""What of actors the configuration leaves open is settled by what the cluster has."""

from types import SimpleNamespace

import pytest
import ray.data

from flexray.pipeline.actors import actor_arguments, let_pools_grow, settle_actors, shards_a_call
from tests.ray.jobs import make_config


@pytest.fixture
def config(tmp_path):
    def config(**sections):
        return make_config(tmp_path / "out", tmp_path / "model", tmp_path / "a.jsonl", **sections)

    return config


def pool(config, resources, shards=100):
    """The least, the first and the most actors, and the GPUs of each."""
    told = actor_arguments(settle_actors(config, resources, shards), resources)
    return (
        told["compute"].min_size,
        told["compute"].initial_size,
        told["compute"].max_size,
        told["num_gpus"],
    )


def test_each_gpu_of_the_cluster_has_an_actor_from_the_start(config):
    assert pool(config(), {"GPU": 8.0, "CPU": 64.0}) == (1, 8, 8, 1)
    assert pool(config(ray={"max_actors": 4}), {"GPU": 8.0}) == (1, 4, 4, 1)
    assert pool(config(ray={"num_gpus_per_actor": 0.5}), {"GPU": 2.0}) == (1, 4, 4, 0.5)


def test_gpus_that_come_only_when_they_are_asked_for_have_actors_as_they_come(config):
    told = config(ray={"num_gpus_per_actor": 1, "max_actors": 4})
    assert pool(told, {"CPU": 8.0}) == (1, 1, 4, 1)


def test_without_gpus_there_is_one_actor_or_as_many_as_are_wanted(config):
    assert pool(config(), {"CPU": 64.0}) == (1, 1, 1, 0)
    assert pool(config(ray={"min_actors": 2}), {"CPU": 64.0}) == (2, 2, 2, 0)
    on_cpu = config()
    on_cpu = on_cpu.model_copy(update={"model": on_cpu.model.model_copy(update={"device": "cpu"})})
    assert pool(on_cpu, {"GPU": 8.0}) == (1, 1, 1, 0)


def test_there_are_no_more_actors_than_shards(config):
    assert pool(config(), {"GPU": 8.0}, shards=3) == (1, 3, 3, 1)
    assert pool(config(ray={"min_actors": 4, "max_actors": 4}), {"GPU": 8.0}, shards=1) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("shards", "actors", "gpus", "a_call"),
    [(1000, 1, 1.0, 250), (100, 1, 1.0, 25), (100, 8, 1.0, 3), (3, 8, 1.0, 1), (1000, 1, 0.0, 85)],
)
def test_a_call_has_several_full_batches_and_leaves_each_actor_several_calls(
    config, shards, actors, gpus, a_call
):
    asked = config(ray={"max_actors": actors, "num_gpus_per_actor": gpus})  # three rows a shard
    assert shards_a_call([SimpleNamespace()] * shards, asked) == a_call


def test_a_pool_can_reach_the_load_at_which_it_grows():
    settings = ray.data.DataContext()
    let_pools_grow(settings)
    assert settings.autoscaling_config.actor_pool_util_upscaling_threshold <= 1
