"""Every night: answer what is new or unfinished of some recipes, and nothing else.

Files may be added to those that a recipe's `data.files` names. An output folder holds one run, of fixed data,
so each file is a run of its own, called a batch, in a folder below the recipe's `output`:

    OUTPUT/<first 16 hex digits of the digest of what the file asks>/

The digest covers row ids and everything that becomes part of a question, not file names and times. So what
is to be done follows from the inputs and the committed manifests alone:

- no run in the file's folder: the batch is new, and is answered;
- a run with shards that are not committed: it was interrupted, and is resumed;
- a run of this configuration with every planned shard committed: it is complete, and left as it is, without
  a lock or a write, whatever code computed it. The sealed manifests say so; rows are read back only if this
  start has computed some, or if asked;
- a run that another process is working on (its lock is alive): it is left alone, and reported;
- a run of another configuration: `run` refuses it, and names what differs. A recipe whose model, prompt or
  methods change needs another `output`.

It may be started twice: if two starts reach the same batch, one holds its lock and the other goes on.

- A renamed, moved or copied file is the same batch. A file with other rows is another batch, and all of it is
  answered: add files, each put in place by a rename, and leave the old ones alone.
- `data.limit`, and few-shots drawn from `prompt.few_shot_data`, apply to each file; an id that is in two
  files is answered in both.
- If a row's records are spread over files (MyriadLAMA as published), all files together are one batch; so is
  a data set of the hub.
- Every start reads every file once. A batch with work to do loads the model once; all share one Ray.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from flexray.models.lora import check_adapters
from flexray.pipeline.hub import download, pin
from flexray.runs.fingerprint import fingerprint_parts
from flexray.runs.retry_errors import retry_errors
from flexray.runs.run import over_limits, run
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
MAX_FINDINGS = 5  # of a damaged batch; `flexray verify` prints them all

Outcome = Literal["complete", "answered", "held", "failed"]


class _NotInOrder(Exception):
    """A batch is complete, but damaged or above its limits."""


@dataclass(slots=True, kw_only=True)
class Night:
    """A start of `nightly`: its options, and the number of batches with each outcome. A recipe that cannot
    be used counts as one batch that failed."""

    retry: bool
    verify_all: bool
    allow_code_change: bool
    log: LogLine
    complain: LogLine
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    exit_code: int = 0
    """The highest of all batches: 0 if all are answered and in order, else as for `run`."""

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
        """Do what a batch needs. Raises _NotInOrder, and what `run` and `retry_errors` raise."""
        found = scan(config.data)
        folder = OutputFolder(f"{config.output.rstrip('/')}/{found.data_digest[:DIGITS]}")
        config = config.model_copy(update={"output": folder.url})
        record = self._load_record(folder)
        is_this = record is not None and not other_parts(
            record, fingerprint_parts(with_few_shots(config), found)
        )
        committed = whole_shards(folder, record.fingerprint) if record and is_this else {}
        complete = record is not None and len(committed) == record.plan.shards
        self.log(f"{name}: {_state(record, is_this, committed)} -> {folder}")

        def indented(line: str) -> None:
            self.log(f"  {line}")

        worked = False
        if not complete:
            done = run(config, allow_code_change=self.allow_code_change, log=indented)
            committed, worked = done.manifests, done.rows_now > 0  # none: another start has done them
        elif record and self.retry and _errors(committed):
            retried = retry_errors(config, allow_code_change=self.allow_code_change, log=indented)
            indented(retried.summary_line())
            committed, worked = whole_shards(folder, record.fingerprint), True
        if (worked or self.verify_all) and not (report := verify(folder)).ok:
            findings = [f"\n  {finding}" for finding in report.findings if not finding.harmless]
            raise _NotInOrder(f"{folder}: {report.summary_line()}{''.join(findings[:MAX_FINDINGS])}")
        if over := over_limits(committed.values(), config.limits):
            raise _NotInOrder(over)
        if worked:
            self.log(f"{name}: done and verified, {_counts(committed)}")
        return "answered" if worked else "complete"

    def _load_record(self, folder: OutputFolder) -> RunRecord | None:
        """The run of a folder; None: it holds none, or its record is lost, and `run` will write it again."""
        try:
            return load_run(folder)
        except NoRunError:
            pass
        except DamageError as e:
            if e.kind not in ("run_record_missing", "run_record_damaged"):
                raise
            self.log(f"{e.path}: {e.what}; it is to be written again")
        return None


def nightly(
    recipes: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    retry: bool = False,
    verify_all: bool = False,
    allow_code_change: bool = False,
    fetch: bool = False,
    log: LogLine = print,
    complain: LogLine = print,
) -> Night:
    """Do what there is to do for each recipe, in order. A failure in one does not stop the others.

    Args:
        recipes: paths or URLs of YAML files, and folders of them.
        overrides: `a.b=value`, for each recipe.
        retry: compute the error rows of complete batches again.
        verify_all: read back the rows of all batches, not only of those that had work to do.
        allow_code_change: go on with incomplete batches of another values version.
        fetch: bring what recipes name of the Hugging Face hub into the cache first.
        log: called with each line about what is found and done.
        complain: called with each line about a failure.

    Raises:
        ConfigError: a folder has no recipe.
    """
    night = Night(
        retry=retry, verify_all=verify_all, allow_code_change=allow_code_change, log=log, complain=complain
    )
    for recipe in find_recipes(recipes):
        with night.going_on(recipe):
            batches = _open(recipe, overrides, fetch, log)
            log(f"{recipe}: {len(batches)} batches")
            for name, config in batches:
                with night.going_on(name):
                    night.outcomes[night.answer(name, config)] += 1
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


def _open(recipe: str, overrides: Sequence[str], fetch: bool, log: LogLine) -> list[tuple[str, RunConfig]]:
    """The batches of a recipe: name and configuration, which has the recipe's own output folder still."""
    config = load_config(recipe, overrides)
    if fetch:
        download(config, log)
    config = pin(config)
    check_checkpoint(config.model.path)
    check_adapters(config.model.path, config.model.lora)
    output = OutputFolder(config.output)
    with contextlib.suppress(NoRunError):
        load_run(output)
        raise OutputError(
            f"{output}: holds a run itself, and a night puts the run of each file below it. "
            "Use another output folder."
        )
    with starting():
        files = [file.path for file in list_files(config.data)]
    if config.data.hub is not None or open_adapter(config.data).grouping is not None:
        return [(config.data.name, config)]
    data = {file: config.data.model_copy(update={"files": (file,)}) for file in files}
    return [(str(redact(file)), config.model_copy(update={"data": data[file]})) for file in files]


def _state(record: RunRecord | None, is_this: bool, committed: Mapping[str, Manifest]) -> str:
    if record is None:
        return "new"
    if not is_this:
        return "answered with another configuration"
    if len(committed) < record.plan.shards:
        return f"unfinished, {len(committed)} of {record.plan.shards} shards"
    return f"complete, {_counts(committed)}"


def _errors(committed: Mapping[str, Manifest]) -> int:
    return sum(manifest.accounting.errors for manifest in committed.values())


def _counts(committed: Mapping[str, Manifest]) -> str:
    return f"{sum(manifest.rows for manifest in committed.values())} rows, {_errors(committed)} errors"
