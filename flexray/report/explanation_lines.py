"""The summary of an explanation, in words: the same in the terminal and in HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flexray.errors import first_few
from flexray.report.explain import Explanation
from flexray.report.explain.explanation import Committed, ExplainedAnswer, SegmentTokens
from flexray.report.formatting import one_line

MAX_NAMED = 5  # answers or steps that one line names


@dataclass(frozen=True, slots=True)
class SummaryLine:
    """A line of the summary."""

    name: str
    text: str
    mood: Literal["", "good", "bad"] = ""


def summary_lines(explanation: Explanation) -> Iterator[SummaryLine]:
    """The summary, in the order in which it is read."""
    answer = explanation.answers[explanation.chosen]
    others = len(explanation.methods) - 1
    yield SummaryLine("question", explanation.question)
    yield SummaryLine("source", f"{explanation.source_file}, row {explanation.source_row}")
    beside = f" (and {others} more in the recipe: --method)" if others else ""
    yield SummaryLine("method", explanation.method + beside)
    yield SummaryLine("model", f"{explanation.model}, {explanation.dtype} on {explanation.device}")
    if answer.generation.error:
        yield SummaryLine("error", answer.generation.error, "bad")
    else:
        count = len(explanation.answers)
        of_several = f"   (answer {explanation.chosen + 1} of {count})" if count > 1 else ""
        yield SummaryLine("prediction", one_line(answer.text) + of_several)
        yield _match(explanation)
        reason = answer.generation.finish_reason
        yield SummaryLine("finished", f"{reason}, after {_tokens(len(answer.steps))}")
        yield SummaryLine("backend", _backend(answer))
        yield _dense(explanation)
    yield from _committed(explanation)


def _match(explanation: Explanation) -> SummaryLine:
    if explanation.correct is None:
        return SummaryLine("exact match", "not scored: the row has no accepted answers")
    shown = first_few(map(one_line, explanation.accepted or ()), MAX_NAMED, " | ")
    text = f"{'yes' if explanation.correct else 'no'}; accepted: {shown}"
    return SummaryLine("exact match", text, "good" if explanation.correct else "bad")


def _backend(answer: ExplainedAnswer) -> str:
    generation = answer.generation
    text = str(generation.backend_used)
    if generation.backend_used != generation.backend_requested:
        text += f", in place of {generation.backend_requested}"
    if generation.fallback_reason:
        text += f": {generation.fallback_reason}"
    return text if generation.attempts == 1 else f"{text} ({generation.attempts} attempts)"


def _dense(explanation: Explanation) -> SummaryLine:
    """Whether the dense pass agrees with the engine."""
    checked = [answer for answer in explanation.answers if answer.draw is None]
    steps = sum(len(answer.steps) for answer in checked)
    if not steps:
        return SummaryLine("dense pass", "nothing to hold against it: the tokens were drawn at random")
    found = [
        (f"step {step}" if len(explanation.answers) == 1 else f"answer {number} step {step}")
        + f" (its best is ahead by {answer.steps[step - 1].gap:.2g})"
        for number, answer in enumerate(explanation.answers, start=1)
        for step in answer.disagreements
    ]
    if not found:
        each = f"all {steps} tokens" if steps > 1 else "the one token"
        return SummaryLine("dense pass", f"the same best token as the engine for {each}", "good")
    return SummaryLine(
        "dense pass",
        f"another best token at {len(found)} of {steps} steps: {first_few(found, MAX_NAMED)}",
        "bad",
    )


def _committed(explanation: Explanation) -> Iterator[SummaryLine]:
    committed = explanation.committed
    if committed is None:
        yield SummaryLine("committed", explanation.not_committed)
        return
    if committed.error:
        yield SummaryLine(
            "committed", f"an error row in shard {committed.shard_id}: {committed.error}", "bad"
        )
    elif explanation.same_tokens:
        text = f"the same {_tokens(len(committed.token_ids))}, {_by(committed)}"
        yield SummaryLine("committed", text, "good")
    else:
        now = explanation.answers[explanation.chosen].generation.token_ids
        pairs = zip(now, committed.token_ids, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(now), len(committed.token_ids)))
        text = (
            f"other tokens, {_by(committed)}: {one_line(committed.prediction)!r}, "
            f"{_tokens(len(committed.token_ids))}, another from token {first + 1} on"
        )
        yield SummaryLine("committed", text, "bad")
    if committed.changed:
        yield SummaryLine("changed since", "; ".join(committed.changed))


def _by(committed: Committed) -> str:
    reason = f" ({committed.fallback_reason})" if committed.fallback_reason else ""
    return f"by {committed.backend_used}{reason}, in shard {committed.shard_id}"


def _tokens(count: int) -> str:
    return f"{count} token" if count == 1 else f"{count} tokens"


def answer_title(explanation: Explanation, index: int) -> str:
    """Which answer it is; "" if there is only one."""
    answer = explanation.answers[index]
    if len(explanation.answers) == 1:
        return ""
    alone = f", of P{answer.sequences[0].paraphrase} alone" if answer.sequences else ""
    drawn = f", drawn (temperature {answer.draw.temperature:g})" if answer.draw else ""
    chosen = ", the row's prediction" if index == explanation.chosen else ""
    return f"Answer {index + 1}{alone}{drawn}{chosen}: {one_line(answer.text)}"


def own_segments(explanation: Explanation, index: int) -> Iterator[tuple[str, SegmentTokens]]:
    """The answer prefix and answer of each sequence of an answer. Before each what to add to its name: the
    answer's number, such as " 1", or the paraphrase, " of P1", or "" if there are no others."""
    answer, several = explanation.answers[index], len(explanation.answers) > 1
    for sequence in answer.sequences:
        of = f" of P{sequence.paraphrase}" if len(answer.sequences) > 1 else ""
        for segment in sequence.segments:
            yield f" {index + 1}" if several else of, segment


def positions_of(segment: SegmentTokens) -> str:
    """The RoPE positions of a segment's tokens, which are consecutive."""
    if not segment.tokens:
        return "-"
    first, last = segment.tokens[0].position, segment.tokens[-1].position
    return str(first) if first == last else f"{first}-{last}"
