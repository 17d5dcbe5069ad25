"""Earlier runs whose rows a table may take: where they are, and whether a recipe gives the same answers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from flexray.config import FewShot, GenerationConfig, MethodConfig, PromptConfig, RunConfig
from flexray.config.load import rename_keys
from flexray.errors import OutputError
from flexray.sink import AnyRecord, NoRunError, OutputFolder, load_run
from flexray.sink.records import OLD_NIGHT, OldRunRecord
from flexray.sink.records.differences import differences
from flexray.storage import redact

EarlierRun = tuple[OutputFolder, AnyRecord]


def runs_in(path: str, to: OutputFolder) -> list[EarlierRun]:
    """The run of a folder, if it is not `to`, and those of the nights of flexray 0.1 that it holds.

    Raises:
        OutputError: there is none, or the folder cannot be listed.
        DamageError: the record of one is lost or damaged.
    """
    folder = OutputFolder(path)
    try:
        files = folder.sizes("")
        nights = [name for name in folder.list() if re.fullmatch(OLD_NIGHT, name) and name not in files]
    except OSError as e:
        raise OutputError(f"{folder}: cannot be listed: {e}") from e
    found = []
    for run in (folder, *(OutputFolder(folder.url_of(name)) for name in nights)):
        if run.url != to.url:
            with contextlib.suppress(NoRunError):
                found.append((run, load_run(run)))
    if not found:
        raise OutputError(
            f"{folder}: holds no run to adopt. Give the output folder of an earlier run, or one that holds "
            "nights of flexray 0.1, a folder for each file."
        )
    return found


def with_few_shots_of(runs: Sequence[EarlierRun], config: RunConfig) -> RunConfig:
    """The configuration with the few-shots that the first run had, if it draws them. Raises OutputError: they
    are not as many as it draws."""
    drawn_from = config.prompt.few_shot_data
    if drawn_from is None:
        return config
    folder, record = runs[0]
    few_shots = tuple(FewShot(**few_shot) for few_shot in record.parts["prompt"]["few_shots"])
    if len(few_shots) != drawn_from.count:
        raise OutputError(
            f"{folder}: its answers are not those of this recipe: they were given with {len(few_shots)} "
            f"few-shots, and prompt.few_shot_data.count is {drawn_from.count}."
        )
    prompt = config.prompt.model_copy(update={"few_shots": few_shots, "few_shot_data": None})
    return config.model_copy(update={"prompt": prompt})


def refuse_other_settings(
    runs: Sequence[EarlierRun], parts: Mapping[str, Any], methods: Sequence[MethodConfig]
) -> None:
    """Raises OutputError if a run's answers are of another model, prompt or generation, of a data set of
    another name, or of methods that have the same names with other settings; each key is named, with both
    values. The code's version does not count.

    Args:
        parts: of the recipe's fingerprint.
        methods: of the recipe.
    """
    here = _settings(parts, parts)
    by_name = {method.name: method.model_dump(mode="json") for method in methods}
    for folder, record in runs:
        try:
            there = _settings(record.parts, parts)
            settings = [MethodConfig.model_validate(tree) for tree in record.config["methods"]]
            # names of an older release need not tell all settings of a plug-in's methods
            names = record.methods if isinstance(record, OldRunRecord) else [m.name for m in settings]
            theirs = {n: m.model_dump(mode="json") for n, m in zip(names, settings, strict=True)}
        except (KeyError, ValidationError) as e:
            raise OutputError(
                f"{folder}: its record has settings that this flexray does not know: {e}"
            ) from e
        both = theirs.keys() & by_name.keys()
        lines = differences(there, here)
        lines += differences({n: theirs[n] for n in both}, {n: by_name[n] for n in both}, "methods")
        if lines:
            raise OutputError(
                f"{folder}: its answers are not those of this recipe. Differences (there -> here):\n  "
                + "\n  ".join(lines)
            )


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
