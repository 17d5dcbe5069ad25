"""Bring the rows of earlier runs into a recipe's table, and compute nothing.

Runs of flexray 0.1 could not grow, and its nights made a folder for each file. Their good rows become shards
of the table, a shard for each old shard and set of methods that answered; error rows are left to the next
run. The old folders are only read.

The plan's files are written first, then the run record that names them, then each shard is committed. So a
command that was killed is started again: what it had not committed is planned anew.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config import FewShot, GenerationConfig, PromptConfig, RunConfig
from flexray.config.load import rename_keys
from flexray.console.progress import LogLine
from flexray.errors import OutputError
from flexray.methods import make_methods
from flexray.runs.fingerprint import code_version, fingerprint_parts, provenance
from flexray.runs.job import check_job
from flexray.sink import (
    AnyRecord,
    Manifest,
    OutputFolder,
    RunRecord,
    commit_shard,
    hold,
    load_run,
    open_run,
    whole_shards,
)
from flexray.sink.committed import load_shard
from flexray.sink.differences import differences
from flexray.sink.growth import Growth, committed_parts
from flexray.sink.plan import part_rows
from flexray.sink.plan_files import next_number, write_part
from flexray.sink.records import CODE_OF_0_1, OLD_NIGHT, RUN_FILE, PlanPart, Selection, fingerprint
from flexray.sink.restore import questions_of
from flexray.sink.start import write_run
from flexray.storage import redact


@dataclass(kw_only=True, slots=True)
class Adopted:
    """What was brought into a table, in output rows: one for each question and method."""

    adopted: int = 0
    skipped: int = 0
    """That the table had already."""
    changed: int = 0
    """Of ids that ask something else in the table, or in a folder that was named before."""
    errors_left: int = 0
    """Error rows; the next run computes them."""
    by_code: Counter[str] = field(default_factory=Counter)
    """Adopted rows by the values version of the code that computed them."""

    def summary_line(self) -> str:
        """One line for people and programs."""
        return (
            f"adopted={self.adopted} skipped={self.skipped} changed={self.changed} "
            f"errors_left={self.errors_left}"
        )


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows of an old shard that become a shard of the table."""

    folder: OutputFolder
    manifest: Manifest
    row_ids: pa.Array
    is_first: bool
    """Of the shards that come of the old one: it takes over the engine's counters."""


@dataclass(slots=True)
class _Part:
    """A part of the plan in the making: its questions, and where each of its shards comes from."""

    questions: list[pa.Table] = field(default_factory=list)
    sources: list[_Source] = field(default_factory=list)


def adopt(config: RunConfig, folders: Sequence[str], *, log: LogLine = print) -> Adopted:
    """Bring the committed good rows of earlier runs into the output folder of a recipe.

    Args:
        folders: output folders of runs, and folders of nights of flexray 0.1, which hold several. The
            recipe's own output folder may be one of these.
        log: called with a line for each folder.

    Raises:
        OutputError: a folder holds no run, or one of another model, prompt or generation; each key is named.
        DamageError: a row that is needed cannot be trusted; nothing is written then.
        UserError: the recipe cannot be run.
    """
    to = OutputFolder(config.output)
    job = check_job(config, to)
    old = [(folder, load_run(folder)) for path in folders for folder in _runs_in(path, to)]
    config = _with_few_shots(job.config, old)
    parts = fingerprint_parts(config, job.config.prompt.few_shot_data)
    for folder, record in old:
        if lines := differences(_settings(record.parts, parts), _settings(parts, parts)):
            raise OutputError(
                f"{folder}: its answers are not those of this recipe. Differences (there -> here):\n  "
                + "\n  ".join(lines)
            )
    done, tree = Adopted(), config.model_dump(mode="json")
    with hold(to, log=log) as lock:
        run = open_run(to, parts=parts, config=tree, code=code_version(), allow_code_change=True)
        kept = committed_parts(run, whole_shards(to, run)) if run else []
        known = _known(to, kept)
        new: dict[tuple[str, ...], _Part] = {}
        for folder, record in old:
            before = done.adopted
            for manifest in whole_shards(folder, record).values():
                _take(folder, manifest, known, new, done)
            log(f"{folder}: {done.adopted - before} rows to adopt")
        number, next_shard = next_number(run), run.next_shard if run else 0
        written: list[tuple[PlanPart, _Part]] = []
        for methods, part in new.items():
            rows = pa.concat_tables(part.questions)
            sizes = [table.num_rows for table in part.questions]
            plan = write_part(
                to,
                number + len(written),
                rows,
                shards=sizes,
                first_shard=next_shard,
                methods=methods,
                fingerprint=fingerprint(parts),
                replaces=pa.array([False] * rows.num_rows),
            )
            written.append((plan, part))
            next_shard += len(sizes)
        names = tuple(method.name for method in make_methods(config.methods))
        run = write_run(
            to,
            run,
            Growth(
                plan=(*kept, *(plan for plan, _ in written)),
                selection=Selection(methods=names, sources=""),  # so the next run looks into the data
                next_shard=next_shard,
            ),
            parts=parts,
            config=tree,
            provenance=provenance(),
            code=code_version(),
        )
        lock.check()
        _commit(to, run, written)
    for version, rows in sorted(done.by_code.items()):
        log(f"{rows} rows were computed by code of values version {version}; their manifests say so")
    return done


def _runs_in(path: str, to: OutputFolder) -> Iterator[OutputFolder]:
    """The runs of a folder: itself, or the nights that it holds. Raises OutputError if there is none."""
    folder = OutputFolder(path)
    try:
        names = folder.list()
        nights = [name for name in names if re.fullmatch(OLD_NIGHT, name) and RUN_FILE in folder.list(name)]
    except OSError as e:
        raise OutputError(f"{folder}: cannot be listed: {e}") from e
    if RUN_FILE in names and folder.url != to.url:
        yield folder
    elif not nights:
        load_run(folder)  # raises if there is no run
        raise OutputError(f"{folder}: is the recipe's own output folder, and holds no nights to adopt.")
    yield from (OutputFolder(folder.url_of(name)) for name in nights)


def _with_few_shots(config: RunConfig, old: Sequence[tuple[OutputFolder, AnyRecord]]) -> RunConfig:
    """With those few-shots that the old runs had, if the recipe draws them."""
    if config.prompt.few_shot_data is None:
        return config
    few_shots = tuple(FewShot(**few_shot) for few_shot in old[0][1].parts["prompt"]["few_shots"])
    prompt = config.prompt.model_copy(update={"few_shots": few_shots, "few_shot_data": None})
    return config.model_copy(update={"prompt": prompt})


def _settings(parts: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal, of the parts of a fingerprint of any release, as today's classes spell it.

    Args:
        like: today's parts: of `data` the keys that they have count.
    """
    tree = rename_keys(redact(dict(parts)))[0]
    prompt = {key: value for key, value in tree["prompt"].items() if key != "few_shot_data"}
    return {
        "data": {key: tree["data"].get(key) for key in like["data"]},
        "model": tree["model"],
        "prompt": PromptConfig.model_validate(prompt).model_dump(mode="json"),
        "generation": GenerationConfig.model_validate(tree["generation"]).model_dump(mode="json"),
        "plugins": tree.get("plugins"),
    }


def _known(folder: OutputFolder, kept: Sequence[PlanPart]) -> dict[str, tuple[bytes, set[str]]]:
    """Of each committed question: its digest, and the methods that have answered it."""
    known: dict[str, tuple[bytes, set[str]]] = {}
    for of_part in part_rows(folder, kept, ["content"]):
        live = of_part.live()
        for row_id, content in zip(live["row_id"].to_pylist(), live["content"].to_pylist(), strict=True):
            known.setdefault(row_id, (content, set()))[1].update(of_part.part.methods)
    return known


def _take(
    folder: OutputFolder,
    manifest: Manifest,
    known: dict[str, tuple[bytes, set[str]]],
    new: dict[tuple[str, ...], _Part],
    done: Adopted,
) -> None:
    """Plan the rows of an old shard that are good and not there yet, by sets of methods."""
    table = load_shard(folder, manifest)
    methods, questions = questions_of(table)
    good = table.filter(pc.equal(table["error"], ""))
    done.errors_left += table.num_rows - good.num_rows
    answered: dict[str, set[str]] = {}
    for row_id, method in zip(good["row_id"].to_pylist(), good["method"].to_pylist(), strict=True):
        answered.setdefault(row_id, set()).add(method)
    groups: dict[tuple[str, ...], list[int]] = {}
    pairs = zip(questions["row_id"].to_pylist(), questions["content"].to_pylist(), strict=True)
    for place, (row_id, content) in enumerate(pairs):
        there, have = known.get(row_id, (content, set()))
        mine = answered.get(row_id, set())
        if there != content:
            done.changed += len(mine)
            continue
        done.skipped += len(mine & have)
        if left := mine - have:
            groups.setdefault(tuple(method for method in methods if method in left), []).append(place)
            known[row_id] = content, have | left
    for number, (by, places) in enumerate(groups.items()):
        rows = questions.take(places)
        part = new.setdefault(by, _Part())
        part.questions.append(rows)
        part.sources.append(_Source(folder, manifest, rows["row_id"].combine_chunks(), number == 0))
        done.adopted += len(by) * len(places)
        for code in manifest.code or (CODE_OF_0_1,):
            done.by_code[str(code.values_version)] += len(by) * len(places)


def _commit(to: OutputFolder, run: RunRecord, written: Sequence[tuple[PlanPart, _Part]]) -> None:
    placed = [
        (plan, source, run.shard_id(plan.file.first_shard + number))
        for plan, part in written
        for number, source in enumerate(part.sources)
    ]
    renamed = {(s.folder.url, s.manifest.shard_id): shard_id for _, s, shard_id in placed if s.is_first}
    for plan, source, shard_id in placed:
        old = source.manifest
        table = load_shard(source.folder, old)
        rows = table.filter(
            pc.and_(
                pc.is_in(table["row_id"], source.row_ids), pc.is_in(table["method"], pa.array(plan.methods))
            )
        )
        at = rows.schema.get_field_index("shard_id")
        rows = rows.set_column(at, rows.schema.field(at), pa.array([shard_id] * rows.num_rows, pa.string()))
        stats: dict[str, Any] = {}
        if source.is_first:
            stats = dict(old.engine_stats)
            if stats.get("counted_in"):
                stats["counted_in"] = renamed.get((source.folder.url, stats["counted_in"]), "")
        commit_shard(
            to,
            shard_id=shard_id,
            table=rows,
            fingerprint=run.fingerprint,
            methods=plan.methods,
            engine_stats=stats,
            seconds=old.seconds if source.is_first else 0.0,
            expected_row_ids=source.row_ids.to_pylist(),
            codes=old.code or (CODE_OF_0_1,),
        )
