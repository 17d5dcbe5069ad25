"""A chat template that computes for ever, or fills the memory, is refused and stopped."""

import os
import threading
from pathlib import Path

import pytest

from flexray.errors import ConfigError
from flexray.prompts import rendering
from flexray.prompts.rendering import RenderingError, render_apart
from tests.unit.prompts.test_chat import TURNS, build, with_template

LOOP = "{% for a in range(99999) %}"
NESTED = LOOP * 4 + "{% endfor %}" * 4
POWER = "{{ 9 ** (9 ** 9) }}"
"""One operation, which nothing in its process can interrupt."""
WRITES = LOOP * 2 + "{{ 'x' * 1000 }}" + "{% endfor %}" * 2
DOUBLES = "{% set ns = namespace(s='x') %}" + LOOP + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
GIANT = "{{ 'x' * 10 ** 12 }}"


def children() -> list[str]:
    """The processes that this one has started and that are there still, zombies too."""
    return [
        child
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


@pytest.fixture
def brief(monkeypatch):
    """Half the time that a template has."""
    monkeypatch.setattr(rendering, "SECONDS", 1)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("bomb", [NESTED, POWER])
def test_a_template_that_computes_for_ever_is_refused_and_its_process_ended(tokenizer, bomb):
    before = children()
    with pytest.raises(ConfigError, match=r"prompt\.chat: .*chat template fails \(it takes too much time\)"):
        build(with_template(tokenizer, bomb + TURNS.replace("CONTENT", "m.content")), "Who?")
    assert children() == before


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("bomb", [WRITES, DOUBLES, GIANT])
def test_a_template_that_fills_the_memory_is_refused(tokenizer, bomb):
    with pytest.raises(ConfigError, match=r"chat template fails \(.*(too much|writes more than|Error)"):
        build(with_template(tokenizer, bomb + TURNS.replace("CONTENT", "m.content")), "Who?")


def test_a_long_text_comes_whole_and_a_longer_one_not():
    assert render_apart(lambda: "é\n" * 200_000) == "é\n" * 200_000
    with pytest.raises(RenderingError, match="writes more than 16 MiB"):
        render_apart(lambda: "x" * (17 << 20))


def test_a_thread_other_than_the_main_one_renders_too():
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(render_apart(lambda: str(os.getpid()))))
    thread.start()
    thread.join()
    assert found != [str(os.getpid())]
