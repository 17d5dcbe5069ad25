"""Bring the rows of earlier runs into a recipe's table, and compute nothing.

Runs of flexray 0.1 could not grow, and its nights made a folder for each file. Their good rows become shards
of the table, a shard for each old shard and set of methods that answered; error rows are left to the next
run. The old folders are only read.

The plan's files are written first, then the run record that names them, then each shard is committed. So a
command that was killed is started again: what it had not committed is planned anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from flexray.config import RunConfig
from flexray.console.progress import LogLine
from flexray.methods import make_methods
from flexray.runs.adopted_shards import Part, Source, commit_parts, write_parts
from flexray.runs.earlier_runs import refuse_other_settings, runs_in, with_few_shots_of
from flexray.runs.fingerprint import code_version, fingerprint_parts, provenance
from flexray.runs.job import check_job
from flexray.sink import (
    CodeVersion,
    Manifest,
    OutputFolder,
    fingerprint,
    hold,
    open_run,
    whole_shards,
)
from flexray.sink.plan.growth import Growth, committed_parts
from flexray.sink.plan.restore import questions_of, rates
from flexray.sink.plan.shards import part_rows
from flexray.sink.read.committed import load_shard
from flexray.sink.records import CODE_OF_0_1, PlanPart, Selection
from flexray.sink.run.start import write_run


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
    """Adopted rows by the code that computed them, as it is called in messages."""
    without_confidences: int = 0
    """Adopted questions whose own confidences are not known: only `confidence` has answered them, whose rows
    have those that it gave."""

    def summary_line(self) -> str:
        """One line for people and programs."""
        return (
            f"adopted={self.adopted} skipped={self.skipped} changed={self.changed} "
            f"errors_left={self.errors_left}"
        )


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
    old = [run for path in folders for run in runs_in(path, to)]
    config = with_few_shots_of(old, job.config)
    parts = fingerprint_parts(config, job.config.prompt.few_shot_data)
    refuse_other_settings(old, parts, config.methods)
    done, tree = Adopted(), config.model_dump(mode="json")
    with hold(to, log=log) as lock:
        run = open_run(to, parts=parts, config=tree, code=code_version(), allow_code_change=True)
        committed = whole_shards(to, run) if run else {}
        kept = committed_parts(run, committed) if run else []
        known = _known(to, kept)
        new: dict[tuple[str, ...], Part] = {}
        keys: dict[tuple[str, str], str] = {}
        for folder, record in old:
            before = done.adopted
            for manifest in whole_shards(folder, record).values():
                keys[folder.url, manifest.shard_id] = manifest.keys_sha256
                _take(folder, manifest, known, new, done)
            log(f"{folder}: {done.adopted - before} rows to adopt")
        if new:
            written = write_parts(to, run, new, run.fingerprint if run else fingerprint(parts))
            ends = (plan.file.first_shard + len(plan.file.sizes) for plan, _ in written)
            run = write_run(
                to,
                run,
                Growth(
                    plan=(*kept, *(plan for plan, _ in written)),
                    # no sources, so that the next run looks into the data
                    selection=Selection(
                        methods=tuple(m.name for m in make_methods(config.methods)), sources=""
                    ),
                    next_shard=max(ends),
                ),
                parts=parts,
                config=tree,
                provenance=provenance(),
                code=code_version(),
            )
            commit_parts(to, run, written, committed=committed, keys=keys, lock=lock)
    for code, rows in sorted(done.by_code.items()):
        log(f"{rows} rows were computed by {code}; their manifests say so")
    if done.without_confidences:
        log(
            f"note: {done.without_confidences} questions have answers by the method confidence only, whose "
            "rows do not tell the question's own confidences. If the data have any, the next run refuses "
            "these questions as changed; --replace-changed computes them again."
        )
    return done


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
    new: dict[tuple[str, ...], Part],
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
    for by, places in groups.items():
        rows = questions.take(places)
        part = new.setdefault(by, Part())
        part.questions.append(rows)
        part.sources.append(Source(folder, manifest, rows["row_id"].combine_chunks()))
        done.adopted += len(by) * len(places)
        done.by_code[_called(manifest.code or (CODE_OF_0_1,))] += len(by) * len(places)
        done.without_confidences += len(places) * all(map(rates, methods))


def _called(codes: Sequence[CodeVersion]) -> str:
    """The code of a shard, for a message."""
    names = (f"flexray {code.flexray} (values version {code.values_version})" for code in codes)
    return " and ".join(dict.fromkeys(names))
