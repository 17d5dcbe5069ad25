"""Evaluate committed output: every method's scores, and the methods against each other."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from flexray import __version__
from flexray.config import EvaluationConfig, parse_evaluation
from flexray.errors import OutputError, UserError
from flexray.evaluation.answer_metrics import Lemmatizer, find_lemmatizer
from flexray.evaluation.bootstrap import Bootstrap, Estimate, estimate_mean
from flexray.evaluation.metrics import Metric, make_metrics
from flexray.evaluation.paired import Comparison, compare
from flexray.evaluation.paraphrases import ParaphraseSummary
from flexray.evaluation.relations import RelationSummary, by_relation
from flexray.evaluation.scores import MethodScores, collect_scores
from flexray.sink import AnyRecord, OutputFolder, load_run, read_committed
from flexray.sink.read.visible import look
from flexray.sink.records.differences import differences


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderSummary:
    """One output folder, as it was read."""

    folder: str
    fingerprint: str
    planned_rows: int
    committed_rows: int
    differs: tuple[str, ...] = ()  # settings and versions that are others than in the first folder


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSummary:
    """One method of one folder. An error row is counted and never scored."""

    label: str  # the method's name, with the folder's if several folders have that method
    folder: str
    method: str
    rows: int
    errors: int
    scored: int
    metrics: dict[str, Estimate | None]  # over the scored rows; the headline metric first
    relations: RelationSummary | None  # None: no row names a relation
    paraphrases: ParaphraseSummary | None  # None: no paraphrase was answered alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything `flexray evaluate` finds."""

    flexray: str
    settings: EvaluationConfig
    """Its headline metric is the one that comparisons, intervals of relations and paraphrases are of."""
    lemmas: str  # what gave the lemmas
    bootstrap: Bootstrap
    folders: tuple[FolderSummary, ...]
    methods: tuple[MethodSummary, ...]
    baseline: str | None
    comparisons: tuple[Comparison, ...]  # each method against the baseline, or each pair

    def to_json(self) -> str:
        """All of it as JSON, one key a line; what does not apply is null."""
        tree = dataclasses.asdict(self) | {"settings": self.settings.model_dump(mode="json")}
        return json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def evaluate(
    outputs: Sequence[str],
    *,
    baseline: str | None = None,
    everything: bool = False,
    overrides: Sequence[str] = (),
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008  frozen
    lemmatizer: Lemmatizer | None = None,
) -> Evaluation:
    """Score the committed rows of one or several runs and compare all methods, row by row.

    Rows are read shard by shard and not kept; of each only what `scores.py` says.

    Args:
        outputs: output folders or URLs.
        everything: also methods and rows that the last recipe of a folder does not name.
        baseline: the label of the method that every other one is compared with. None: each pair.
        overrides: `evaluation.key=value`, in place of what the first folder's recipe says.
        lemmatizer: None: the best that is installed.

    Raises:
        OutputError: a folder holds no run, cannot be trusted, or has no scored row; or two folders
            have other answers for the same row.
        ConfigError: an override or a metric that cannot be used.
        UserError: no such baseline, the same folder twice, or none.
    """
    if not outputs:
        raise UserError("no output folder is named. Give at least one.")
    lemmatizer = lemmatizer or find_lemmatizer()
    folders = [OutputFolder(output) for output in outputs]
    names = _folder_names(folders)
    first = load_run(folders[0])
    settings = parse_evaluation(first.config.get("evaluation", {}), overrides)
    metrics = make_metrics(settings, lemmatizer)
    read = [_read(folder, metrics, everything, first) for folder in folders]
    shared = Counter(method for _, methods in read for method in methods)
    found = {
        method if shared[method] == 1 else f"{name}:{method}": (str(folder), method, scores)
        for name, folder, (_, methods) in zip(names, folders, read, strict=True)
        for method, scores in methods.items()
    }
    pairs = _pairs(list(found), baseline)
    return Evaluation(
        flexray=__version__,
        settings=settings,
        lemmas=lemmatizer.name,
        bootstrap=bootstrap,
        folders=tuple(summary for summary, _ in read),
        methods=tuple(_summarise(label, *method, bootstrap) for label, method in found.items()),
        baseline=baseline,
        comparisons=tuple(compare(a, found[a][-1], b, found[b][-1], bootstrap) for a, b in pairs),
    )


def _read(
    folder: OutputFolder, metrics: dict[str, Metric], everything: bool, first: AnyRecord
) -> tuple[FolderSummary, dict[str, MethodScores]]:
    run, seen = look(folder, everything=everything)
    methods = collect_scores(read_committed(folder, everything=everything), metrics, where=str(folder))
    rows = sum(scores.rows for scores in methods.values())
    if not rows:
        raise OutputError(f"{folder}: holds a run of which nothing is committed yet. Run it first.")
    if not any(scores.scored for scores in methods.values()):
        raise OutputError(
            f"{folder}: none of its {rows:,} committed rows is scored: each has an error or no accepted "
            "answers. Name the answers in the data's configuration and run again into another folder."
        )
    summary = FolderSummary(
        folder=str(folder),
        fingerprint=run.fingerprint,
        planned_rows=seen.planned.rows,
        committed_rows=rows,
        differs=tuple(
            differences(first.config, run.config, "config")
            + differences(first.provenance, run.provenance, "versions")
        ),
    )
    return summary, methods


def _folder_names(folders: Sequence[OutputFolder]) -> list[str]:
    """The last part of each path; the whole path where two have the same last part."""
    paths = [str(folder).rstrip("/") for folder in folders]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]}: is named twice. Name each output folder once.")
    names = [path.rsplit("/", 1)[-1] for path in paths]
    return [name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)]


def _pairs(labels: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    if baseline is None:
        return list(combinations(labels, 2))
    if baseline not in labels:
        raise UserError(f"--baseline {baseline}: there is no such method. There are: {', '.join(labels)}")
    return [(label, baseline) for label in labels if label != baseline]


def _summarise(
    label: str, folder: str, method: str, scores: MethodScores, bootstrap: Bootstrap
) -> MethodSummary:
    return MethodSummary(
        label=label,
        folder=folder,
        method=method,
        rows=scores.rows,
        errors=scores.errors,
        scored=scores.scored,
        metrics={metric: estimate_mean(scores.values(metric), bootstrap) for metric in scores.metrics},
        relations=by_relation(scores, bootstrap),
        paraphrases=scores.paraphrases.summary(bootstrap),
    )
