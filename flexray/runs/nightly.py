"""Every night: answer what is new or unfinished of some recipes, and nothing else.

Files may be added to what a recipe's `data.files` names. An output folder holds one run, of fixed data, so
each file is a run of its own, a batch, in a folder below the recipe's `output`:

    OUTPUT/<first 16 hex digits of the digest of what the file asks>/

The digest is the scan's, over row ids and everything that becomes part of a question, not over names and
times. So what is to be done follows from the inputs and the committed manifests alone:

- no run in the file's folder: it is new, and is answered;
- a run with shards that are not committed: it was killed, and is resumed;
- a run of this configuration with every planned shard committed: it is complete, and left as it is, without
  a lock or a write, whatever code computed it. That is read from the sealed manifests; rows are read back
  when a start has computed some, and of complete batches if asked;
- a run that another process is at (its lock is alive): it is left alone, and reported;
- a run of another configuration: `run` refuses it, and names what differs. A recipe whose model, prompt or
  methods change needs another `output`.

It may be started twice: where two starts come to the same batch, one holds its lock, the other goes on.

- A renamed, moved or copied file is the same batch. One with other rows is another, and is answered whole:
  add files, each put in place by a rename, and leave the old ones alone.
- `data.limit`, and few-shots drawn from `prompt.few_shot_data`, are of the file; an id that is in two files
  is answered in both.
- Where a row's records are spread over files (MyriadLAMA as published) all files together are one batch.
- Every start reads every file once. A batch with work to do loads the model once; all share one Ray.
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
from flexray.console.progress import LogLine
from flexray.data import list_files, scan, with_few_shots
from flexray.data.adapters import open_adapter
from flexray.errors import ConfigError, OutputError, UserError
from flexray.models.checkpoint import check_checkpoint
from flexray.runs.fingerprint import fingerprint_parts
from flexray.runs.retry_errors import retry_errors
from flexray.runs.run import RunResult, run
from flexray.sink import (
    DamageError,
    HeldError,
    Manifest,
    NoRunError,
    OutputFolder,
    RunRecord,
    load_run,
    other_parts,
    verify,
    whole_shards,
)
from flexray.storage import redact, starting

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
    def going_on(self, name: str, complain: LogLine) -> Iterator[None]:
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
    allow_code_change: bool = False,
    log: LogLine = print,
    complain: LogLine = print,
) -> Night:
    """Do what there is to do of each recipe, in order. What fails in one stops no other.

    Args:
        recipes: paths or URLs of YAML files, and folders of them.
        overrides: `a.b=value`, for each recipe.
        retry: compute the error rows of complete batches again.
        verify_all: read back the rows of all batches, not only of those that have work to do.
        allow_code_change: go on with batches of another values version that are not complete.
        log: is told, line by line, what is found and done.
        complain: is told what failed.

    Raises:
        ConfigError: a folder has no recipe.
    """
    night = Night()
    for recipe in find_recipes(recipes):
        with night.going_on(recipe, complain):
            batches = _open(recipe, overrides)
            log(f"{recipe}: {len(batches)} batches")
            for name, config in batches:
                with night.going_on(name, complain):
                    night.outcomes[_answer(name, config, retry, verify_all, allow_code_change, log)] += 1
    log(night.summary_line())
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
    if open_adapter(config.data).grouping is not None:
        return [(config.data.name, config)]
    data = {file: config.data.model_copy(update={"files": (file,)}) for file in files}
    return [(str(redact(file)), config.model_copy(update={"data": data[file]})) for file in files]


def _answer(
    name: str, config: RunConfig, retry: bool, verify_all: bool, allow_code_change: bool, log: LogLine
) -> Outcome:
    """Do what a batch needs. Raises _NotInOrder, and what `run` and `retry_errors` raise."""
    found = scan(config.data)
    folder = OutputFolder(f"{config.output.rstrip('/')}/{found.data_digest[:DIGITS]}")
    config = config.model_copy(update={"output": folder.url})
    record = _record(folder, log)
    parts = fingerprint_parts(with_few_shots(config), found)
    is_this = record is not None and not other_parts(record, parts)
    committed = whole_shards(folder, record.fingerprint) if record and is_this else {}
    complete = record is not None and len(committed) == record.plan.shards
    log(f"{name}: {_state(record, is_this, committed)} -> {folder}")

    def indented(line: str) -> None:
        log(f"  {line}")

    worked = False
    if not complete:
        done = run(config, allow_code_change=allow_code_change, log=indented)
        committed, worked = done.manifests, done.rows_now > 0  # none: another start was at it, and is done
    elif record and retry and _errors(committed):
        retried = retry_errors(config, allow_code_change=allow_code_change, log=indented)
        indented(retried.summary_line())
        committed, worked = whole_shards(folder, record.fingerprint), True
    if worked or verify_all:
        _verify(folder)
    if over := RunResult(manifests=committed, rows_before=0, rows_now=0, seconds=0).over_limits(
        config.limits
    ):
        raise _NotInOrder(over)
    if worked:
        log(f"{name}: done and verified, {_counts(committed)}")
    return "answered" if worked else "complete"


def _record(folder: OutputFolder, log: LogLine) -> RunRecord | None:
    """The run of a folder; None: it holds none, or one whose record is lost, which `run` writes again."""
    try:
        return load_run(folder)
    except NoRunError:
        pass
    except DamageError as e:
        if e.kind not in ("run_record_missing", "run_record_damaged"):
            raise
        log(f"{e.path}: {e.what}; it is to be written again")
    return None


def _state(record: RunRecord | None, is_this: bool, committed: dict[str, Manifest]) -> str:
    if record is None:
        return "new"
    if not is_this:
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
