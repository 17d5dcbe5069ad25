"""What is asked of each node; tests/hosts has several."""

import platform

import pytest

from flexray.errors import ConfigError, DataError
from flexray.pipeline.each_node import ask_each_node
from flexray.pipeline.failures import Failure


def test_a_node_answers_by_its_name_with_what_it_sees_or_what_fails(local_ray):
    import ray

    def fail():
        raise DataError("gone")

    def break_down():
        raise AssertionError("a bug")

    name = f"{platform.node()} ({ray.util.get_node_ip_address()})"
    assert ask_each_node(platform.node) == {name: platform.node()}
    (failure,) = ask_each_node(fail).values()
    assert isinstance(failure, Failure)
    assert failure.message == "gone"
    with pytest.raises(ConfigError) as raised:
        ask_each_node(break_down)
    assert str(raised.value).startswith(f"node {name}: flexray cannot be run there: AssertionError: a bug. ")
