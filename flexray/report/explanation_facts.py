"""What an explanation comes to, in words: the same in the terminal and in HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flexray.report.explain import Explanation
from flexray.report.explain.explanation import Answer, Committed, Segment
from flexray.report.regions import one_line

MAX_SHOWN = 5  # steps, or accepted answers, that are named one by one


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the summary."""

    name: str
    text: str
    mood: Literal["", "good", "bad"] = ""


def facts_of(explanation: Explanation) -> list[Fact]:
    """The summary, in the order in which it is read."""
    return list(_facts(explanation))


def _facts(explanation: Explanation) -> Iterator[Fact]:
    answer = explanation.answers[explanation.chosen]
    others = len(explanation.methods) - 1
    yield Fact("question", explanation.question)
    yield Fact("source", f"{explanation.source_file}, row {explanation.source_row}")
    beside = f" (and {others} more in the recipe: --method)" if others else ""
    yield Fact("method", explanation.method + beside)
    yield Fact("model", f"{explanation.model}, {explanation.dtype} on {explanation.device}")
    if answer.generation.error:
        yield Fact("error", answer.generation.error, "bad")
    else:
        yield Fact("prediction", _of_several(one_line(answer.text), explanation))
        yield _match(explanation)
        count = len(answer.steps)
        yield Fact("finished", f"{answer.generation.finish_reason}, after {_tokens(count)}")
        yield Fact("backend", _backend(answer))
        yield _dense(explanation)
    yield from _committed(explanation)


def _of_several(text: str, explanation: Explanation) -> str:
    count = len(explanation.answers)
    return text if count == 1 else f"{text}   (answer {explanation.chosen + 1} of {count})"


def _match(explanation: Explanation) -> Fact:
    if explanation.correct is None:
        return Fact("exact match", "not scored: the row has no accepted answers")
    accepted = explanation.accepted or ()
    shown = " | ".join(map(one_line, accepted[:MAX_SHOWN]))
    more = f" | .. {len(accepted) - MAX_SHOWN} more" if len(accepted) > MAX_SHOWN else ""
    verdict = "yes" if explanation.correct else "no"
    return Fact(
        "exact match", f"{verdict}; accepted: {shown}{more}", "good" if explanation.correct else "bad"
    )


def _backend(answer: Answer) -> str:
    generation = answer.generation
    text = str(generation.backend_used)
    if generation.backend_used != generation.backend_requested:
        text += f", in place of {generation.backend_requested}"
    if generation.fallback_reason:
        text += f": {generation.fallback_reason}"
    return text if generation.attempts == 1 else f"{text} ({generation.attempts} attempts)"


def _dense(explanation: Explanation) -> Fact:
    """Whether the second pass says what the engine said."""
    checked = [answer for answer in explanation.answers if answer.draw is None]
    steps = sum(len(answer.steps) for answer in checked)
    if not steps:
        return Fact("dense pass", "nothing to hold against it: the tokens were drawn at random")
    found = [
        (f"step {step}" if len(explanation.answers) == 1 else f"answer {number} step {step}")
        + f" (its best is ahead by {answer.steps[step - 1].gap:.2g})"
        for number, answer in enumerate(explanation.answers, start=1)
        for step in answer.disagreements
    ]
    if not found:
        each = f"all {steps} tokens" if steps > 1 else "the one token"
        return Fact("dense pass", f"the same best token as the engine for {each}", "good")
    more = f" and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
    named = ", ".join(found[:MAX_SHOWN]) + more
    return Fact("dense pass", f"another best token at {len(found)} of {steps} steps: {named}", "bad")


def _committed(explanation: Explanation) -> Iterator[Fact]:
    committed = explanation.committed
    if committed is None:
        yield Fact("committed", explanation.not_committed)
        return
    if committed.error:
        yield Fact("committed", f"an error row in shard {committed.shard_id}: {committed.error}", "bad")
    elif explanation.same_tokens:
        text = f"the same {_tokens(len(committed.token_ids))}, {_by(committed)}"
        yield Fact("committed", text, "good")
    else:
        now = explanation.answers[explanation.chosen].generation.token_ids
        pairs = zip(now, committed.token_ids, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(now), len(committed.token_ids)))
        text = (
            f"other tokens, {_by(committed)}: {one_line(committed.prediction)!r}, "
            f"{_tokens(len(committed.token_ids))}, another from token {first + 1} on"
        )
        yield Fact("committed", text, "bad")
    if committed.changed:
        yield Fact("changed since", "; ".join(committed.changed))


def _by(committed: Committed) -> str:
    reason = f" ({committed.fallback_reason})" if committed.fallback_reason else ""
    return f"by {committed.backend_used}{reason}, in shard {committed.shard_id}"


def _tokens(count: int) -> str:
    return f"{count} token" if count == 1 else f"{count} tokens"


def own_segments(explanation: Explanation, index: int) -> Iterator[tuple[str, tuple[Segment, ...]]]:
    """The answer prefix and answer of each branch of an answer; before them what tells their names from
    those of others: the answer's number, such as " 1", or the paraphrase, " of P1", or "" if there are no
    others."""
    answer, several = explanation.answers[index], len(explanation.answers) > 1
    for branch in answer.branches:
        of = f" of P{branch.paraphrase}" if len(answer.branches) > 1 else ""
        yield f" {index + 1}" if several else of, branch.segments


def positions_of(segment: Segment) -> str:
    """The RoPE positions of a segment's tokens, which are consecutive."""
    if not segment.tokens:
        return "-"
    first, last = segment.tokens[0].position, segment.tokens[-1].position
    return str(first) if first == last else f"{first}-{last}"


def percent(share: float) -> str:
    """In %, with a decimal; exactly nothing is a 0, a little is not."""
    if share == 0:
        return "0"
    return "<0.1" if share < 0.0005 else f"{100 * share:.1f}"
