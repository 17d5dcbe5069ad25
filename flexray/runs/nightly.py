"""Every night: answer what is new or unfinished of some recipes, and nothing else.

Each recipe has one output folder, which grows with its data (see `runs/job.py` and `sink/plan/growth.py`): a
night is a run of the recipe as its data are now. So what is to be done follows from inputs and commits alone:

- an added file, more rows or a new method: exactly that is computed;
- a file that was renamed, moved or copied over with the same rows: nothing;
- a run that was interrupted: the rest;
- nothing of that: nothing. The versions of the files say so (size, time, ETag), and none is read;
- a row that asks something else under an id that has an answer: the recipe is refused, with file, row and
  field, and nothing of it is computed, unless `--replace-changed` says to compute such rows again;
- another model, prompt or other setting that would mix answers: refused, with each key. Give another
  `output`;
- a run that another process is working on: left alone, and reported.

It may be started twice: if two starts reach the same recipe, one holds its lock and the other goes on. A
folder of nights of flexray 0.1, which has a folder for each file, is brought in by `flexray adopt`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Literal

from flexray.config import RunConfig, load_config
from flexray.console.progress import LogLine
from flexray.errors import ConfigError, OutputError, UserError
from flexray.pipeline.hub import download
from flexray.runs.retry_errors import retry_errors
from flexray.runs.run import over_limits, run
from flexray.sink import HeldError, Manifest, OutputFolder, verify, whole_shards
from flexray.sink.read.visible import look, seen_manifests
from flexray.sink.records import OLD_NIGHT, RUN_FILE

MAX_FINDINGS = 5  # of a damaged folder; `flexray verify` prints them all

Outcome = Literal["complete", "answered", "held", "failed"]


class _NotInOrder(Exception):
    """A recipe's output is complete, but damaged or above its limits."""


@dataclass(slots=True, kw_only=True)
class Night:
    """A start of `nightly`: its options, and the number of recipes with each outcome."""

    retry: bool
    verify_all: bool
    allow_code_change: bool
    replace_changed: bool
    log: LogLine
    complain: LogLine
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    exit_code: int = 0
    """The highest of all recipes: 0 if all are answered and in order, else as for `run`."""

    def summary_line(self) -> str:
        """For people and programs."""
        names: tuple[Outcome, ...] = ("complete", "answered", "held", "failed")
        return " ".join(f"{name}={self.outcomes[name]}" for name in names)

    @contextlib.contextmanager
    def going_on(self, name: str) -> Iterator[None]:
        """What fails within is reported and counted, and the night goes on."""
        outcome: Outcome = "failed"
        try:
            yield
            return
        except HeldError as e:
            outcome, code, message = "held", 2, f"left alone: {e}"
        except (UserError, OSError) as e:
            code, message = 2, str(e)
        except _NotInOrder as e:
            code, message = 1, str(e)
        except Exception as e:
            traceback.print_exc()
            code, message = 1, f"{type(e).__name__}: {e}"
        self.outcomes[outcome] += 1
        self.exit_code = max(self.exit_code, code)
        self.complain(f"{name}: {message}")

    def answer(self, name: str, config: RunConfig) -> Outcome:
        """Do what a recipe needs. Raises _NotInOrder, and what `run` and `retry_errors` raise."""
        folder = OutputFolder(config.output)
        _refuse_old_nights(folder, name)

        def indented(line: str) -> None:
            self.log(f"  {line}")

        self.log(f"{name} -> {folder}")
        done = run(
            config,
            allow_code_change=self.allow_code_change,
            replace_changed=self.replace_changed,
            log=indented,
        )
        committed, worked = done.manifests, done.rows_now > 0  # none: another start has done them
        if self.retry and _errors(committed):
            retried = retry_errors(config, allow_code_change=self.allow_code_change, log=indented)
            indented(retried.summary_line())
            record, seen = look(folder)
            committed = seen_manifests(folder, seen, whole_shards(folder, record))
            worked |= retried.retried > 0
        if (worked or self.verify_all) and not (report := verify(folder)).ok:
            findings = [f"\n  {finding}" for finding in report.findings if not finding.harmless]
            raise _NotInOrder(f"{folder}: {report.summary_line()}{''.join(findings[:MAX_FINDINGS])}")
        if over := over_limits(committed.values(), config.limits):
            raise _NotInOrder(over)
        self.log(f"{name}: {'done and verified' if worked else 'complete'}, {_counts(committed)}")
        return "answered" if worked else "complete"


def nightly(
    recipes: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    retry: bool = False,
    verify_all: bool = False,
    allow_code_change: bool = False,
    replace_changed: bool = False,
    fetch: bool = False,
    log: LogLine = print,
    complain: LogLine = print,
) -> Night:
    """Do what there is to do for each recipe, in order. A failure in one does not stop the others.

    Args:
        recipes: paths or URLs of YAML files, and folders of them.
        overrides: `a.b=value`, for each recipe.
        retry: then compute the error rows again that are there.
        verify_all: read back the rows of all recipes, not only of those that had work to do.
        allow_code_change: go on with runs of another values version.
        replace_changed: compute rows again whose question has changed since they were answered.
        fetch: bring what recipes name of the Hugging Face hub into the cache first.
        log: called with each line about what is found and done.
        complain: called with each line about a failure.

    Raises:
        ConfigError: a folder has no recipe.
    """
    night = Night(
        retry=retry,
        verify_all=verify_all,
        allow_code_change=allow_code_change,
        replace_changed=replace_changed,
        log=log,
        complain=complain,
    )
    for recipe in find_recipes(recipes):
        with night.going_on(recipe):
            config = load_config(recipe, overrides)
            if fetch:
                download(config, log)
            night.outcomes[night.answer(recipe, config)] += 1
    log(night.summary_line())
    return night


def find_recipes(paths: Sequence[str]) -> list[str]:
    """The recipes at these paths: of a local folder its `*.yaml` in order, else the path itself.

    Raises:
        ConfigError: a folder has none.
    """
    found: list[str] = []
    for path in paths:
        is_folder = "://" not in path and Path(path).is_dir()
        names = sorted(glob("*.yaml", root_dir=path)) if is_folder else []  # none that begin with a dot
        recipes = [str(Path(path, name)) for name in names] if is_folder else [path]
        if not recipes:
            raise ConfigError(f"{path}: a folder without a recipe (*.yaml). Put one there, or name another.")
        found += recipes
    return found


def _refuse_old_nights(folder: OutputFolder, recipe: str) -> None:
    """Raises OutputError if the folder holds nights of flexray 0.1, and no table."""
    names = folder.list()
    if RUN_FILE in names:
        return
    nights = [name for name in names if re.fullmatch(OLD_NIGHT, name) and RUN_FILE in folder.list(name)]
    if nights:
        raise OutputError(
            f"{folder}: holds {len(nights)} nights of flexray 0.1, a folder for each file. Bring their rows "
            f"into one table with `flexray adopt --config {shlex.quote(recipe)} {shlex.quote(str(folder))}`, "
            "which computes nothing again, or use another output folder."
        )


def _errors(committed: dict[str, Manifest]) -> int:
    return sum(manifest.accounting.errors for manifest in committed.values())


def _counts(committed: dict[str, Manifest]) -> str:
    return f"{sum(manifest.rows for manifest in committed.values())} rows, {_errors(committed)} errors"
