"""Duplicate ids, sampled rows that will be error rows, and prompts with unexpected tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.compute as pc

from flexray.console.checks import Finding, fail, passed, warn
from flexray.data.repeats import first_of
from flexray.errors import first_few, shown
from flexray.pipeline.prepare import prompt_builder
from flexray.preflight.plan.dry_run import DryRun
from flexray.preflight.plan.sample import take_sample

BEFORE = 4
"""Tokens shown before the first one that differs."""


def check_duplicates(run: DryRun) -> Iterator[Finding]:
    """Rows that repeat the id or the content of an earlier row of the data set."""
    found = run.found
    assert found is not None
    faulty = found.filter(pc.not_equal(found["error"], "")).select(["source_file", "source_row", "error"])
    twice = [
        f"{row['source_file']}, row {row['source_row']}, as {first}"
        for row in faulty.to_pylist()
        if (first := first_of(row["error"]))
    ]
    if twice:
        yield warn(
            f"{len(twice)} of {found.num_rows} rows have the id or the content of another row and will be "
            f"error rows (the first ones: {first_few(twice, separator='; ')}). Remove them, or give them ids "
            "of their own."
        )


def take_sample_of_rows(run: DryRun) -> Iterator[Finding]:
    """Make the prompts of some rows."""
    assert run.drawn is not None
    run.sample = sample = take_sample(run.found, run.drawn, run.sample_rows)
    yield passed(f"{sample.rows:,} rows, {len(sample.faults):,} faulty")
    if sample.prompts:
        first = sample.prompts[0]
        yield passed(
            f"{sample.prompt_tokens} tokens, of which {len(first.context):,} are the context and "
            f"{len(first.answer_prefix):,} the answer prefix",
            "prompt",
        )
        yield passed(f"{sample.paraphrases} a row", "paraphrases")


def check_sample(run: DryRun) -> Iterator[Finding]:
    """Sampled rows that will be error rows, and whether there are more than the limit allows."""
    sample, methods, limits = run.sample, run.methods, run.config.limits
    assert sample is not None
    rows, faults = sample.rows, sample.faults
    if faults:
        yield warn(
            f"{len(faults)} of {rows} sampled rows are faulty and will be error rows. The first: "
            f"{first_few(faults, separator=' ')}"
        )
    weighing = [method.name for method in methods if method.needs_confidences]
    missing = sum(prompt.confidences is None for prompt in sample.prompts) if weighing else 0
    if missing:
        note = fail if missing == len(sample.prompts) else warn
        yield note(
            f"{', '.join(weighing)}: {missing} of {rows} sampled rows have no confidences, which these need, "
            "and will be error rows of theirs. Map data.fields.confidences, give data.paraphrase_files with "
            "confidences, or leave these methods out."
        )
    errors = len(faults) * len(methods) + missing * len(weighing)
    if errors > limits.max_error_share * rows * len(methods):
        yield fail(
            f"{errors} of the {rows * len(methods)} output rows of the sample would be errors, more than "
            f"limits.max_error_share ({limits.max_error_share}) allows: the run would end with exit code 1. "
            "Correct the rows, or raise the limit."
        )


def check_tokens(run: DryRun) -> Iterator[Finding]:
    """A missing BOS, and prompts whose segments have other tokens than the text as a whole, which is how
    few-shots are tokenised; shows both token lists of the first such prompt."""
    assert run.drawn is not None
    assert run.sample is not None
    builder = prompt_builder(run.drawn)
    if builder.lacks_bos:
        if_not = "" if run.config.prompt.chat else "; if not, set prompt.add_bos to false"
        yield warn(
            f"{run.config.model.path}: the tokenizer has no BOS token, so prompts begin without one. If the "
            f"model was trained with one, copy its tokenizer_config.json into the folder{if_not}."
        )
    texts = [text for question in run.sample.questions if not question.error for text in question.paraphrases]
    pairs = [builder.apart_and_whole(text) for text in texts]
    differing = [(apart, whole) for apart, whole in pairs if apart != whole]
    if differing:
        apart, whole = differing[0]
        same = next((i for i, (a, b) in enumerate(zip(apart, whole, strict=False)) if a != b), len(whole))
        start = max(0, same - BEFORE)
        yield warn(
            f"{len(differing)} of {len(pairs)} sampled paraphrases have other tokens in their prompts than "
            "the same text has as a whole, which is how few-shots are written: the tokenizer joins what "
            "stands around a boundary. Begin question_template and answer_prefix with a newline. The first: "
            "in parts "
            f"{shown(builder.tokens(apart[start:]))}, as a whole {shown(builder.tokens(whole[start:]))}."
        )
