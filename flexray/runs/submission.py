"""A command of flexray as it is submitted to a cluster, checked before anything is uploaded."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from flexray.config import RunConfig, load_config
from flexray.config.paths import INPUTS
from flexray.config.recipe import RECIPE_ENDINGS, read_recipe
from flexray.errors import ConfigError
from flexray.models.hub import hub_model
from flexray.runs.bundle import Bundle
from flexray.runs.job_environment import CONSTRAINTS, job_environment
from flexray.runs.nightly import find_recipes
from flexray.storage import redact

NIGHTLY = "nightly"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobCommand:
    """A command line of flexray, taken apart."""

    name: str
    recipes: tuple[str, ...] = ()
    """Merged into one; for nightly, recipes and folders of recipes."""
    overrides: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    """Output folders; a recipe among them stands for its own."""
    plugins: tuple[str, ...] = ()
    """Of `--plugin`."""
    options: tuple[str, ...] = ()
    """The other options, as they are passed on."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Those of them that name a file or folder, which must be one that the job sees."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A job in the form in which it is submitted."""

    id: str
    entrypoint: str
    """A shell command, run in the folder of the unpacked bundle."""
    bundle: Bundle
    runtime_env: dict[str, Any]
    """Without the bundle."""


def make_submission(
    command: JobCommand,
    *,
    runtime_env: Path | None = None,
    install: bool = True,
    submission_id: str | None = None,
) -> Submission:
    """The job that runs this command.

    Args:
        runtime_env: a YAML file. None: see `job_environment`, with `install`.
        submission_id: None: made of command, data set, day, and a digest of command line and recipes.

    Raises:
        ConfigError: a recipe has a fault, a path is relative, or the runtime environment is no YAML mapping.
    """
    bundle = Bundle()
    is_nightly = command.name == NIGHTLY
    recipes = [[path] for path in find_recipes(command.recipes)] if is_nightly else [command.recipes]
    added = [bundle.add_recipe(paths, command.overrides) for paths in recipes if paths]
    configs = [config for _, config in added]
    outputs = [_output(path) for path in command.outputs]
    places = [("output", output) for output in outputs] + [*command.paths.items()]
    for config in configs:
        places += [("output", config.output), *_input_places(config)]
    _refuse_relative(places)

    words = [*command.options, *(f"--plugin={bundle.add_plugin(plugin)}" for plugin in command.plugins)]
    # a command that has both takes its recipe as an option
    words += [f"--config={path}" if outputs else path for path, _ in added] + outputs
    entrypoint = shlex.join(["python", "-m", "flexray", command.name, *words])
    if runtime_env is None:
        environment, constraints = job_environment(install=install)
        bundle.files[CONSTRAINTS] = constraints.encode()
    else:
        environment = read_recipe([str(runtime_env)])
    texts = [bundle.files[path] for path, _ in added]
    subject = "" if is_nightly else configs[0].data.name if configs else _last_part(outputs)
    return Submission(
        id=submission_id or _id(command.name, subject, [entrypoint.encode(), *texts]),
        entrypoint=entrypoint,
        bundle=bundle,
        runtime_env=environment,
    )


def _id(command: str, subject: str, told_apart_by: list[bytes]) -> str:
    digest = hashlib.sha256(b"\n".join(told_apart_by)).hexdigest()[:6]
    parts = ["flexray", command, subject, date.today().isoformat(), digest]
    return re.sub(r"[^\w.-]+", "-", "-".join(filter(None, parts)), flags=re.ASCII)


def _output(path: str) -> str:
    return load_config(path).output if path.endswith(RECIPE_ENDINGS) else path


def _last_part(outputs: list[str]) -> str:
    return outputs[0].rstrip("/").rpartition("/")[2] if outputs else ""


def _refuse_relative(places: list[tuple[str, str]]) -> None:
    last = ((key, path, path.rpartition("::")[2]) for key, path in places)  # zip://a.jsonl::questions.zip
    wrong = [f"{key}: {path}" for key, path, end in last if "://" not in end and not os.path.isabs(end)]
    if wrong:
        raise ConfigError(
            f"relative paths: {', '.join(map(str, map(redact, wrong)))}. On the cluster they would be in the "
            "job's own folder, which lasts as long as the job. Give absolute paths or URLs that every node "
            "sees."
        )


def _input_places(config: RunConfig) -> Iterator[tuple[str, str]]:
    """What a recipe names that is there already; but not plug-ins, which are in the bundle, and no names on
    the hub, which the job looks for in the cluster's cache."""
    for key in INPUTS:
        if key != "plugins" and not (key == "model.path" and _is_on_hub(config.model.path)):
            yield from ((key, path) for path in _values(config, key))
    for key in ("data.hub.name", "prompt.few_shot_data.hub.name"):
        yield from ((key.removesuffix(".name"), name) for name in _values(config, key) if os.path.isdir(name))


def _is_on_hub(model: str) -> bool:
    is_here = os.path.isdir(model.partition("/")[0])  # a folder, or meant as one
    return hub_model(model) is not None and not is_here


def _values(config: RunConfig, key: str) -> Sequence[str]:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name, None)
    return (value,) if isinstance(value, str) else value or ()
