"""Answer one row again on this machine, with the run's engine, and look at how it was answered."""

from __future__ import annotations

from collections.abc import Sequence

from flexray import __version__
from flexray.config import RunConfig
from flexray.data import with_few_shots
from flexray.engine.engine import Engine
from flexray.engine.stopping_criteria import answer_text, token_text
from flexray.evaluation import to_table
from flexray.models.checkpoint import load_model
from flexray.pipeline.shards import AnsweredShard
from flexray.report.explain.explanation import Committed, Explanation
from flexray.report.explain.recorded import find_committed
from flexray.report.explain.rows import choose_method, find_row
from flexray.report.explain.trace import trace


def explain(config: RunConfig, *, row: str, method: str | None = None, top: int = 5) -> Explanation:
    """Answer one row by one method, and say step by step what was looked at and what else could have come.

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
    config = with_few_shots(config)
    spec, question, prompt = find_row(config, row)
    asked = config.methods[number]
    committed = find_committed(config, question.row_id, asked.name)

    model, tokenizer = load_model(
        config.model.path,
        dtype=config.model.dtype,
        device=config.model.device,
        trust_remote_code=config.model.trust_remote_code,
    )
    engine = Engine(model, tokenizer, [asked], config.generation, config.engine, config.model.quantization)
    ((generations,),) = engine.generate([prompt])

    def text_of(ids: Sequence[int]) -> str:
        return "".join(token_text(tokenizer, i) for i in ids)

    def answer_of(ids: Sequence[int]) -> str:
        return answer_text(tokenizer, ids, at_newline=config.generation.stop_at_newline)

    (planned,) = engine.methods
    found = trace(engine.model, planned, prompt, generations, top=top, text_of=text_of, answer_text=answer_of)
    texts = tuple(answer.text for answer in found.answers)
    answered = AnsweredShard(spec, [question], [(generations,)], [(texts,)], [0], {}, 0.0)
    (output,) = to_table(answered, (asked.name,)).to_pylist()  # the row as a run would write it
    said = [(text, list(generation.token_ids)) for text, generation in zip(texts, generations, strict=True)]
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
        parts=found.parts,
        segments=found.segments,
        answers=found.answers,
        chosen=said.index((output["prediction"], output["token_ids"])),
        paraphrase_predictions=tuple(output["paraphrase_predictions"]),
        correct=output["correct"],
        committed=committed if isinstance(committed, Committed) else None,
        not_committed="" if isinstance(committed, Committed) else committed,
    )
