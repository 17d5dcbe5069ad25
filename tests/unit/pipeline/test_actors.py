"""What of actors the configuration leaves open is settled by what the cluster has."""

from types import SimpleNamespace

import pytest
import ray.data

from flexray.errors import ConfigError
from flexray.pipeline.actors import Pace, actor_arguments, let_pools_grow, settle_actors, shards_a_call
from flexray.pipeline.nodes import Node
from tests.ray.jobs import make_config


@pytest.fixture
def config(tmp_path):
    def config(**sections):
        return make_config(tmp_path / "out", tmp_path / "model", tmp_path / "a.jsonl", **sections)

    return config


def nodes(*cpus, gpus=0):
    """As many as numbers are given, with so many CPUs each, and so many GPUs."""
    return [Node(float(n), float(gpus)) for n in cpus]


def on(device, config):
    return config.model_copy(update={"model": config.model.model_copy(update={"device": device})})


def pool(config, nodes, shards=100, **grows):
    """The least, the first and the most actors, and the GPUs of each."""
    told = actor_arguments(settle_actors(config, nodes, shards, **grows))
    return (
        told["compute"].min_size,
        told["compute"].initial_size,
        told["compute"].max_size,
        told["num_gpus"],
    )


def test_each_gpu_of_the_cluster_has_an_actor_from_the_start(config):
    assert pool(config(), nodes(64, gpus=8)) == (1, 8, 8, 1)
    assert pool(config(), nodes(8, 8, gpus=4)) == (1, 8, 8, 1)
    assert pool(config(ray={"max_actors": 4}), nodes(64, gpus=8)) == (1, 4, 4, 1)
    assert pool(config(ray={"num_gpus_per_actor": 0.5}), nodes(64, gpus=2)) == (1, 4, 4, 0.5)


def test_an_actor_has_its_gpus_on_one_node(config):
    pairs = config(ray={"num_gpus_per_actor": 2})
    assert pool(pairs, nodes(8, 8, 8, gpus=3)) == (1, 3, 3, 2)
    with pytest.raises(
        ConfigError, match=r"an engine needs 1 CPU and 2 GPUs on one node, but none of the 2 nodes"
    ):
        pool(pairs, nodes(8, 8, gpus=1))


def test_gpus_that_come_only_when_they_are_asked_for_have_actors_as_they_come(config):
    told = config(ray={"num_gpus_per_actor": 1, "max_actors": 4})
    assert pool(told, nodes(8), grows=True) == (1, 1, 4, 1)
    waiting = settle_actors(told, nodes(8), 100, grows=True)
    assert "needs 1 CPU and 1 GPU on one node, but the only node has 8 CPUs: waiting" in waiting.note
    assert waiting.config.ray.num_cpus_per_actor == 1


def test_without_gpus_there_is_one_actor_or_as_many_as_are_wanted(config):
    assert pool(config(), nodes(64)) == (1, 1, 1, 0)
    assert pool(config(ray={"min_actors": 2}), nodes(64)) == (2, 2, 2, 0)
    assert pool(on("cpu", config()), nodes(64, gpus=8)) == (1, 1, 1, 0)


def test_there_are_no_more_actors_than_shards(config):
    assert pool(config(), nodes(64, gpus=8), shards=3) == (1, 3, 3, 1)
    assert pool(config(ray={"min_actors": 4, "max_actors": 4}), nodes(64, gpus=8), shards=1) == (1, 1, 1, 1)


def test_there_are_no_more_actors_than_there_is_room_for_and_it_is_said(config):
    settled = settle_actors(config(ray={"min_actors": 8}), nodes(2), 100)
    assert (settled.config.ray.min_actors, settled.config.ray.max_actors, settled.first) == (2, 2, 2)
    assert "ray.min_actors is 8, but there is room only for 2 with 1 CPU each: 2 will answer" in settled.note
    asked = config(ray={"min_actors": 1, "max_actors": 8})
    assert pool(asked, nodes(4)) == (1, 1, 4, 0)
    assert settle_actors(asked, nodes(4), 100).note == ""


@pytest.mark.parametrize("cpus", [1, 2, 3, 16])
@pytest.mark.parametrize("actors", [1, 2, 5])
@pytest.mark.parametrize("each", [0.3, 0.5, 1, 2])
def test_actors_leave_cpus_for_reading_and_committing_on_some_node(config, cpus, actors, each):
    asked = config(ray={"min_actors": actors, "num_cpus_per_actor": each})
    if each > cpus:
        return
    for cluster in (nodes(cpus), nodes(cpus, cpus)):
        settled = settle_actors(asked, cluster, 100)
        taken = settled.config.ray
        left = sum(node.cpus for node in cluster) - taken.max_actors * taken.num_cpus_per_actor
        assert 0 < settled.task_cpus <= min(1, left)
        assert taken.num_cpus_per_actor in (each, each / 2)


@pytest.mark.parametrize(
    ("asked", "cluster", "message"),
    [
        ({"num_cpus_per_actor": 8}, nodes(2), r"needs 8 CPUs .* only node has 2 CPUs\. Set .* to at most 2"),
        ({"num_gpus_per_actor": 1}, nodes(2), r"num_gpus_per_actor: .* only node has 2 CPUs\. Use a cluster"),
        (
            {"num_gpus_per_actor": 2},
            nodes(2, 2, gpus=1),
            r"none of the 2 nodes has .* 1 GPU\. Set .* to at most 1",
        ),
        ({}, [], "there is no node yet"),
    ],
)
def test_what_no_node_has_is_refused_with_the_numbers(config, asked, cluster, message):
    with pytest.raises(ConfigError, match=message):
        settle_actors(config(ray=asked), cluster, 100)


def test_a_model_that_is_to_be_on_a_gpu_is_not_loaded_on_a_cpu(config):
    assert pool(on("cuda", config()), nodes(8, gpus=2)) == (1, 2, 2, 1)
    with pytest.raises(ConfigError, match=r"model\.device is cuda, but the only node has 2 CPUs\. Set it"):
        pool(on("cuda", config()), nodes(2))


def test_engines_that_leave_the_gpus_idle_are_told_of(config):
    assert "GPUs stay idle" in settle_actors(config(ray={"num_gpus_per_actor": 0}), nodes(8, gpus=1), 9).note


def test_the_engine_is_given_more_shards_at_once_as_long_as_it_is_quick(config):
    pace = Pace(config(data={"shard_rows": 16}))
    assert pace.shards == 4  # two batches of 32
    pace.took(4, 1.0)
    pace.took(3, 1.0)  # the rest of a batch
    assert pace.shards == 8
    pace.took(8, 1000.0)
    pace.took(4, 30.0)
    assert pace.shards == 4
    for _ in range(4):
        pace.took(pace.shards, 1000.0)
    assert pace.shards == 1


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


def test_a_model_on_several_gpus_has_them_on_one_node_or_is_refused(config):
    split = config(engine={"tensor_parallel": 4})
    assert pool(split, nodes(64, 64, gpus=8)) == (1, 4, 4, 4)
    assert pool(split, nodes(64)) == (1, 1, 1, 0)  # on CPUs
    with pytest.raises(
        ConfigError,
        match=r"tensor_parallel: 4: an engine needs 4 GPUs on one node, but none of the 2 nodes has more "
        r"than 8 CPUs and 2 GPUs\. Set it to at most 2",
    ):
        pool(split, nodes(8, 8, gpus=2))
    with pytest.raises(ConfigError, match=r"num_gpus_per_actor is 2, but engine\.tensor_parallel 4 takes"):
        config(engine={"tensor_parallel": 4}, ray={"num_gpus_per_actor": 2})
