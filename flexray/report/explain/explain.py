"""Answer one row again on this machine, with the run's engine, and show how it was answered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from flexray import __version__
from flexray.config import RunConfig
from flexray.data import scan, with_few_shots
from flexray.data.question import ShardSpec
from flexray.engine.engine import Engine
from flexray.engine.stopping_criteria import token_text
from flexray.errors import UserError
from flexray.evaluation import to_table
from flexray.models.checkpoint import load_model
from flexray.pipeline.answer import decode_answers
from flexray.pipeline.hub import pin
from flexray.pipeline.shards import AnsweredShard, answer_lists, question_table
from flexray.report.explain.explanation import Committed, Explanation
from flexray.report.explain.selection import choose_method, find_row
from flexray.report.explain.trace import trace
from flexray.sink import OutputFolder, committed_shards, load_run
from flexray.sink.plan.shards import load_plan
from flexray.sink.read.committed import load_shard
from flexray.sink.records import RUN_FILE
from flexray.sink.records.differences import differences
from flexray.storage import redact

SECTIONS = ("model", "prompt", "generation", "engine")
"""Of a configuration: those that decide on a row's tokens."""


def explain(config: RunConfig, *, row: str, method: str | None = None, top: int = 5) -> Explanation:
    """Answer one row by one method, and show for each token what it attends to and the most likely tokens.

    Nothing is written, and Ray is not started.

    Args:
        row: the row's id, or its number from 1.
        method: a name, or a number from 1, of the recipe's methods. None: the first.
        top: candidates of each step.

    Raises:
        ConfigError: no such method. DataError: no such row, or one that the run makes an error row of.
        ModelError: a model that cannot be loaded.
        the backend's own error, with `engine.strict`.
    """
    number = choose_method(config.methods, method)
    config = with_few_shots(
        pin(config), map(scan, [config.data])
    )  # compared with a record, which has commits
    question, prompt = find_row(config, row)
    asked = config.methods[number]
    committed = find_committed(config, question.row_id, asked.name)

    model, tokenizer = load_model(
        config.model.path,
        dtype=config.model.dtype,
        device=config.model.device,
        trust_remote_code=config.model.trust_remote_code,
        lora=config.model.lora,
    )
    engine = Engine(model, tokenizer, [asked], config.generation, config.engine, config.model.quantization)
    ((generations,),) = engine.generate([prompt])

    def text_of(ids: Sequence[int]) -> str:
        return "".join(token_text(tokenizer, i) for i in ids)

    asked_of = question_table([question])
    ((texts,),) = decode_answers([(generations,)], asked_of, tokenizer, config)
    (planned,) = engine.methods
    segments, answers = trace(
        engine.model, planned, prompt, generations, top=top, text_of=text_of, texts=texts
    )
    spec = ShardSpec(shard_id="", file="", row_group=0, num_rows=1, methods=(asked.name,))
    said = answer_lists([(generations,)], [(texts,)])
    answered = AnsweredShard(spec, asked_of, [0], said, {}, 0.0)
    (output,) = to_table(answered, (asked.name,)).to_pylist()  # the row as a run would write it
    pairs = [(text, list(generation.token_ids)) for text, generation in zip(texts, generations, strict=True)]
    return Explanation(
        flexray=__version__,
        model=config.model.path,
        device=str(engine.device),
        dtype=str(model.dtype).removeprefix("torch."),
        row_id=question.row_id,
        source_file=question.source_file,
        source_row=question.source_row,
        question=question.question,
        accepted=question.answers,
        method=asked.name,
        methods=tuple(m.name for m in config.methods),
        fusion=planned.fusion,
        segments=segments,
        answers=answers,
        chosen=pairs.index((output["prediction"], output["token_ids"])),
        paraphrase_predictions=tuple(output["paraphrase_predictions"]),
        correct=output["correct"],
        committed=committed if isinstance(committed, Committed) else None,
        not_committed="" if isinstance(committed, Committed) else committed,
    )


def find_committed(config: RunConfig, row_id: str, method: str) -> Committed | str:
    """The row as the output folder has it, or why there is none to compare with. Nothing is written."""
    try:
        folder = OutputFolder(config.output)
        if RUN_FILE not in folder.list():
            return f"nothing to compare with: {folder} holds no run"
        run = load_run(folder)
        if method not in run.methods:
            return f"{folder}: the run there has no method {method}"
        key = method, row_id
        shard_ids = load_plan(folder, run).shards_of([key]).get(key)
        if shard_ids is None:
            return f"{folder}: the run there has no row {row_id}"
        shard_id = shard_ids[-1]  # an earlier one has what was asked under this id before
        manifest = committed_shards(folder, run).get(shard_id)
        if manifest is None:
            return f"{folder}: shard {shard_id} is not committed yet"
        table = load_shard(folder, manifest)
    except (UserError, OSError) as e:
        return str(e)
    here = pc.and_(pc.equal(table["row_id"], row_id), pc.equal(table["method"], method))
    columns = [field.name for field in dataclasses.fields(Committed) if field.name != "changed"]
    (row,) = table.filter(here).select(columns).to_pylist()
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
    }
    then = {name: run.config.get(name) for name in SECTIONS}
    now = redact(config.model_dump(mode="json", include=set(SECTIONS)))
    return Committed(**values, changed=tuple(differences(then, now)))
