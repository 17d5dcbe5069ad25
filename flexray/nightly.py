"""Every night: answer what is new or unfinished of some recipes, and nothing else.

A recipe is a whole run configuration. Its data may become more from night to night: files are added to what
`data.files` names. An output folder holds one run, of fixed data, so each file is a run of its own, a
batch, in a folder below the recipe's `output`:

    OUTPUT/<first 16 hex digits of the digest of what the file asks>/

The digest is the scan's, over row ids and everything that becomes part of a question; names and times do
not count. So what is to be done follows from storage alone, the inputs and the committed manifests; there is
no list of what was done, and no date:

- no run in the file's folder: it is new, and is answered;
- a run with shards that are not committed: it was killed, and is resumed;
- a run of this configuration with every planned shard committed: it is complete, and left as it is, without
  a lock or a write. That is read from the sealed manifests; rows are read back when a start has computed
  some, and of complete batches if asked;
- a run that another process is at (its lock is alive): it is left alone, and reported;
- a run of another configuration: `run` refuses it, and names what differs. A recipe whose model, prompt or
  methods change needs another `output`.

It may be started twice, by accident or to share the work: of two starts that come to the same batch one
holds its lock, and the other goes on with the next.

What follows from a batch being a file:

- A renamed, moved or copied file is the same batch. One whose rows were changed, or that has grown, is
  another, and is answered whole: add files, each put in place by a rename, and leave the old ones alone.
- `data.limit`, and few-shots drawn from `prompt.few_shot_data`, are of the file; an id that is in two files
  is answered in both.
- Where a row's records are spread over files (MyriadLAMA as published) all files together are one batch.
- Every start reads every file once, to know it. A batch with work to do loads the model once.
- All recipes use the Ray that the first one with work to do has joined or started.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Literal

from flexray.config import RunConfig, load_config
from flexray.data import list_files, scan, with_few_shots
from flexray.data.kinds import open_kind
from flexray.engine.checkpoint import check_checkpoint
from flexray.job import fingerprint_parts
from flexray.progress import Say
from flexray.retry import retry_errors
from flexray.run import RunResult, run
from flexray.sink import (
    DamageError,
    HeldError,
    Manifest,
    NoRunError,
    OutputFolder,
    RunRecord,
    fingerprint,
    load_run,
    verify,
    whole_shards,
)
from flexray.storage import scrub, starting
from flexray.types import ConfigError, OutputError, UserError

DIGITS = 16  # of a batch's digest, in the name of its folder
MAX_FINDINGS = 5  # of a batch that is not in order; `flexray verify` prints them all

Outcome = Literal["complete", "answered", "held", "failed"]


class _NotInOrder(Exception):
    """A batch is complete, but damaged or above its limits."""


@dataclass(slots=True)
class Night:
    """What a start found and did, in batches; a recipe that cannot be used counts as one that failed."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    exit_code: int = 0
    """The highest of all: 0 if everything that was found is answered and in order, else as for `run`."""

    def summary_line(self) -> str:
        """For people and programs."""
        names: tuple[Outcome, ...] = ("complete", "answered", "held", "failed")
        return " ".join(f"{name}={self.outcomes[name]}" for name in names)

    @contextlib.contextmanager
    def going_on(self, name: str, complain: Say) -> Iterator[None]:
        """What fails in here is told and counted, and stops nothing else."""
        outcome: Outcome = "failed"
        try:
            yield
            return
        except HeldError as e:
            outcome, code, told = "held", 2, f"left alone: {e}"
        except (UserError, OSError) as e:
            code, told = 2, str(e)
        except _NotInOrder as e:
            code, told = 1, str(e)
        except Exception as e:
            traceback.print_exc()
            code, told = 1, f"{type(e).__name__}: {e}"
        self.outcomes[outcome] += 1
        self.exit_code = max(self.exit_code, code)
        complain(f"{name}: {told}")


def nightly(
    recipes: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    retry: bool = False,
    verify_all: bool = False,
    say: Say = print,
    complain: Say = print,
) -> Night:
    """Do what there is to do of each recipe, in order. What fails in one stops no other.

    Args:
        recipes: paths or URLs of YAML files, and folders of them.
        overrides: `a.b=value`, for each recipe.
        retry: compute the error rows of complete batches again.
        verify_all: read back the rows of all batches, not only of those that have work to do.
        say: is told, line by line, what is found and done.
        complain: is told what failed.

    Raises:
        ConfigError: a folder has no recipe.
    """
    night = Night()
    for recipe in find_recipes(recipes):
        with night.going_on(recipe, complain):
            batches = _open(recipe, overrides)
            say(f"{recipe}: {len(batches)} batches")
            for name, config in batches:
                with night.going_on(name, complain):
                    night.outcomes[_answer(name, config, retry, verify_all, say)] += 1
    say(night.summary_line())
    return night


def find_recipes(paths: Sequence[str]) -> list[str]:
    """The recipes that are meant: a local folder stands for its `*.yaml` in order, any other path for itself.

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


def _open(recipe: str, overrides: Sequence[str]) -> list[tuple[str, RunConfig]]:
    """The batches of a recipe, each with its name, and with the recipe's own output folder still."""
    config = load_config(recipe, overrides)
    check_checkpoint(config.model.path)
    output = OutputFolder(config.output)
    with contextlib.suppress(NoRunError):
        load_run(output)
        raise OutputError(
            f"{output}: holds a run itself, and a night puts the run of each file below it. "
            "Use another output folder."
        )
    with starting():
        files = [file.path for file in list_files(config.data)]
    if open_kind(config.data).gathering is not None:
        return [(config.data.name, config)]
    data = {file: config.data.model_copy(update={"files": (file,)}) for file in files}
    return [(str(scrub(file)), config.model_copy(update={"data": data[file]})) for file in files]


def _answer(name: str, config: RunConfig, retry: bool, verify_all: bool, say: Say) -> Outcome:
    """Do what a batch needs. Raises _NotInOrder, and what `run` and `retry_errors` raise."""
    found = scan(config.data)
    folder = OutputFolder(f"{config.output.rstrip('/')}/{found.data_digest[:DIGITS]}")
    config = config.model_copy(update={"output": folder.url})
    record = _record(folder, say)
    here = fingerprint(fingerprint_parts(with_few_shots(config), found))
    committed = whole_shards(folder, here) if record and record.fingerprint == here else {}
    complete = record is not None and len(committed) == record.plan.shards
    say(f"{name}: {_state(record, here, committed)} -> {folder}")

    def indented(line: str) -> None:
        say(f"  {line}")

    worked = False
    if not complete:
        done = run(config, say=indented)
        committed, worked = done.manifests, done.rows_now > 0  # none: another start was at it, and is done
    elif retry and _errors(committed):
        indented(retry_errors(config, say=indented).summary_line())
        committed, worked = whole_shards(folder, here), True
    if worked or verify_all:
        _verify(folder)
    result = RunResult(manifests=committed, rows_before=0, rows_now=0, seconds=0)
    if over := result.over_limits(config.limits):
        raise _NotInOrder(over)
    if worked:
        say(f"{name}: done and verified, {_counts(committed)}")
    return "answered" if worked else "complete"


def _record(folder: OutputFolder, say: Say) -> RunRecord | None:
    """The run of a folder; None: it holds none, or one whose record is lost, which `run` writes again."""
    try:
        return load_run(folder)
    except NoRunError:
        pass
    except DamageError as e:
        if e.kind not in ("run_record_missing", "run_record_damaged"):
            raise
        say(f"{e.path}: {e.what}; it is to be written again")
    return None


def _state(record: RunRecord | None, here: str, committed: dict[str, Manifest]) -> str:
    if record is None:
        return "new"
    if record.fingerprint != here:
        return "answered with another configuration"
    if len(committed) < record.plan.shards:
        return f"unfinished, {len(committed)} of {record.plan.shards} shards"
    return f"complete, {_counts(committed)}"


def _verify(folder: OutputFolder) -> None:
    if not (report := verify(folder)).ok:
        findings = [f"\n  {finding}" for finding in report.findings if not finding.harmless]
        raise _NotInOrder(f"{folder}: {report.summary_line()}{''.join(findings[:MAX_FINDINGS])}")


def _errors(committed: dict[str, Manifest]) -> int:
    return sum(manifest.accounting.errors for manifest in committed.values())


def _counts(committed: dict[str, Manifest]) -> str:
    return f"{sum(manifest.rows for manifest in committed.values())} rows, {_errors(committed)} errors"
