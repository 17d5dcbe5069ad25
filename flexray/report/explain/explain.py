"""Answer one row again on this machine, with the run's engine, and show how it was answered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
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
from flexray.pipeline.shards import AnsweredShard, answer_lists, question_table
from flexray.report.explain.explanation import Explanation
from flexray.report.explain.selection import choose_method, find_row
from flexray.report.explain.trace import trace
from flexray.sink import OutputFolder, committed_shards, load_run
from flexray.sink.plan.shards import load_plan
from flexray.sink.read.committed import load_shard
from flexray.sink.records import RUN_FILE


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
    asked = config.methods[choose_method(config.methods, method)]
    config = with_few_shots(config, map(scan, [config.data]))
    question, prompt = find_row(config, row)
    model, tokenizer = load_model(
        config.model.path,
        dtype=config.model.dtype,
        device=config.model.device,
        trust_remote_code=config.model.trust_remote_code,
        lora=config.model.lora,
    )
    engine = Engine(model, tokenizer, [asked], config.generation, config.engine, config.model.quantization)
    ((generations,),) = engine.generate([prompt])
    questions = question_table([question])
    ((texts,),) = decode_answers([(generations,)], questions, tokenizer, config)
    (planned,) = engine.methods
    text_of = partial(token_text, tokenizer)
    segments, answers = trace(
        engine.model, planned, prompt, generations, top=top, text_of=text_of, texts=texts
    )
    spec = ShardSpec(shard_id="", file="", row_group=0, num_rows=1, methods=(asked.name,))
    said = answer_lists([(generations,)], [(texts,)])
    answered = AnsweredShard(spec, questions, [prompt.num_tokens], said, {}, 0.0)
    (output,) = to_table(answered, (asked.name,)).to_pylist()
    committed, same_tokens = compare(config, output)
    return Explanation(
        flexray=__version__,
        model=config.model.path,
        device=str(engine.device),
        dtype=str(model.dtype).removeprefix("torch."),
        row=output,
        fusion=planned.fusion,
        segments=segments,
        answers=answers,
        chosen=[list(generation.token_ids) for generation in generations].index(output["token_ids"]),
        committed=committed,
        same_tokens=same_tokens,
    )


def compare(config: RunConfig, row: Mapping[str, Any]) -> tuple[str, bool | None]:
    """What the output folder has of a row (ROW_SCHEMA), and whether its tokens are the same; None: it has
    none. Nothing is written."""
    try:
        folder = OutputFolder(config.output)
        committed = _committed(folder, (row["method"], row["row_id"]))
    except (UserError, OSError) as e:
        return str(e), None
    if committed is None:
        return f"nothing to compare with: {folder} has no answer to this row by this method", None
    same = committed["token_ids"] == row["token_ids"] and committed["error"] == row["error"]
    said = committed["error"] or repr(committed["prediction"])
    by = f"by {committed['backend_used'] or 'none'}, in shard {committed['shard_id']}"
    return f"{said}, {by}: {'the same' if same else 'differs'}", same


def _committed(folder: OutputFolder, key: tuple[str, str]) -> dict[str, Any] | None:
    """The committed row of a method and a row id; None: it is not there."""
    if RUN_FILE not in folder.list():
        return None
    run = load_run(folder)
    shard_ids = load_plan(folder, run).shards_of([key]).get(key)
    if shard_ids is None:
        return None
    # an earlier one has what was asked under this id before
    manifest = committed_shards(folder, run).get(shard_ids[-1])
    if manifest is None:
        return None
    table = load_shard(folder, manifest)
    here = pc.and_(pc.equal(table["method"], key[0]), pc.equal(table["row_id"], key[1]))
    (row,) = table.filter(here).to_pylist()
    return dict(row)
