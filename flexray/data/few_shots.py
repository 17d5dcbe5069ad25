"""Draw few-shots from another file or split (`prompt.few_shot_data`), without questions that the run asks.

The few-shots are the same for all rows, because all rows share the context. So they are drawn once, on the
driver, and replace `prompt.few_shots`. Workers and the fingerprint use only these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config import FewShot, RunConfig
from flexray.config.data import DataConfig, FewShotData, Fields, SourceConfig
from flexray.data.files import list_files
from flexray.data.plan_rows import to_questions
from flexray.data.question import Question
from flexray.data.ranges import list_ranges
from flexray.data.scan import Summary, check_summaries, read_range
from flexray.errors import ConfigError, DataError, UserError
from flexray.storage import redact, starting


def with_few_shots(config: RunConfig, asked: Iterable[pa.Table]) -> RunConfig:
    """The configuration with `prompt.few_shot_data` replaced by the few-shots that are drawn from it.

    Args:
        asked: as `choose_few_shots`. Not touched if there is nothing to draw.

    Raises:
        ConfigError: as `choose_few_shots`.
        DataError: a file of the few-shots cannot be read.
    """
    if config.prompt.few_shot_data is None:
        return config
    few_shots = choose_few_shots(config, asked)
    prompt = config.prompt.model_copy(update={"few_shots": few_shots, "few_shot_data": None})
    return config.model_copy(update={"prompt": prompt})


def choose_few_shots(config: RunConfig, asked: Iterable[pa.Table]) -> tuple[FewShot, ...]:
    """Draw the few-shots. The result depends on the seed and the rows, not on the order or files of the rows.

    A few-shot's question is the first of its paraphrases, and none is repeated.

    A row is not used if its question or one of its paraphrases is also a question or paraphrase of the data
    set (ignoring case and white space), if it has a fault, or if it has no answer. The rows to draw from are
    held in memory; those of the data set are looked at once, as a stream.

    Args:
        asked: the rows of the data set, with the columns `question` and `paraphrases` of PLAN_SCHEMA.

    Raises:
        ConfigError: fewer usable rows than `count`; or a file is also a file of the data set, all of whose
            rows are asked.
        DataError: a file cannot be read.
    """
    drawn_from = config.prompt.few_shot_data
    if drawn_from is None:
        return config.prompt.few_shots
    source = _as_data(drawn_from)
    with starting():
        _check_files(source, config.data)
    try:
        candidates = _candidates(source)
    except UserError as e:
        raise _of_few_shots(e) from e
    places: dict[str, list[str]] = {}  # every wording of a candidate -> the candidates
    for name, question in candidates.items():
        for wording in {_normal(text) for text in (question.question, *question.paraphrases)}:
            places.setdefault(wording, []).append(name)
    found = len(candidates)
    for table in asked:
        for texts in (table["question"], pc.list_flatten(table["paraphrases"])):
            for wording in places.keys() & set(map(_normal, texts.to_pylist())):
                for name in places[wording]:
                    candidates.pop(name, None)
    if len(candidates) < drawn_from.count:
        files = redact(", ".join(drawn_from.sources))
        raise ConfigError(
            f"prompt.few_shot_data: {drawn_from.count} few-shots are wanted, but of {found} usable questions "
            f"in {files} only {len(candidates)} are not asked in the run. Lower count, "
            "or name a file of other questions."
        )
    # sorted by digest, so that adding or removing a row does not change the order of the others
    order = sorted(candidates, key=lambda name: sha256(f"{drawn_from.seed}/{name}".encode()).digest())
    chosen = [candidates[name] for name in order[: drawn_from.count]]
    return tuple(
        FewShot(
            question=q.question,
            answer=(q.answers or ("",))[0],
            paraphrases=tuple(dict.fromkeys((q.question, *q.paraphrases)))[1 : drawn_from.max_paraphrases],
        )
        for q in chosen
    )


def refuse_asked_few_shots(drawn: Sequence[FewShot], asked: Iterable[pa.Table]) -> None:
    """Raises ConfigError if a row asks what a few-shot asks that was drawn before the row was there.

    Args:
        asked: as `choose_few_shots`.
    """
    wordings = {_normal(text) for few_shot in drawn for text in few_shot.asked}
    for table in asked:
        for texts in (table["question"], pc.list_flatten(table["paraphrases"])):
            if again := wordings.intersection(map(_normal, texts.to_pylist())):
                raise ConfigError(
                    f"prompt.few_shot_data: {min(again)!r} was drawn as a few-shot when the run began, and a "
                    "row asks it now. Take the row out, or use another output folder, where few-shots are "
                    "drawn anew."
                )


def _candidates(source: DataConfig) -> dict[str, Question]:
    """The usable rows by normalised question; the first one if a question is repeated."""
    candidates: dict[str, Question] = {}
    summaries: list[Summary] = []
    for part in list_ranges(source):
        reader = read_range(source, part)
        for table in reader:
            for question in to_questions(table, dataset=source.name, split=source.split):
                if not question.error and question.answers:
                    candidates.setdefault(_normal(question.question), question)
        summaries.append(reader.summary)
    check_summaries(source, summaries)
    return candidates


def _as_data(drawn_from: FewShotData) -> DataConfig:
    """The rows to draw from, as the configuration of a data set."""
    shared = {key: getattr(drawn_from, key) for key in SourceConfig.model_fields}
    if drawn_from.kind != "records":
        return DataConfig(name="few-shots", **shared)
    fields = Fields(
        id=None,
        question=drawn_from.fields.question,
        paraphrases=drawn_from.fields.paraphrases,
        answers=drawn_from.fields.answers,
    )
    return DataConfig(name="few-shots", fields=fields, include_question=True, **shared)


def _check_files(source: DataConfig, data: DataConfig) -> None:
    """Refuse a file of the data set if all its questions are asked: no row of it could be used."""
    try:
        ours = {file.path for file in list_files(source)}
    except DataError as e:
        raise _of_few_shots(e) from e
    both = ours.intersection(file.path for file in list_files(data))
    if both and data.limit is None and data.sample is None and data.sample_rows is None and not data.ids:
        names = redact(", ".join(sorted(both)))
        raise ConfigError(
            f"prompt.few_shot_data: {names}: is also in data.files, and all its questions are asked. "
            "Name another file or split, or limit the data set with data.limit."
        )


def _of_few_shots(error: UserError) -> UserError:
    return type(error)(f"prompt.few_shot_data (in this message, `data` means this section): {error}")


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
