"""An explanation on the console."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from flexray.console.terminal import printable
from flexray.errors import first_few
from flexray.report.explain.explanation import (
    Committed,
    ExplainedAnswer,
    Explanation,
    SegmentTokens,
    SequenceAttention,
)
from flexray.report.formatting import one_line, percentage
from flexray.report.tables import Fact, Table, Tone, Toned, print_facts, print_table

WIDTH = 100
MAX_ANSWERS = 10
MAX_NAMED = 5  # answers or steps that one line names
MAX_SEGMENTS = 4
"""That are named at a step: those that get most of its attention."""
PROBABILITIES = {
    None: "the softmax of the logits",
    "mean": "the softmax of the weighted mean of the paraphrases' logits",
    "mean_prob": "the weighted mean of those that the paraphrases give",
    "nbce": "the softmax of the surest paraphrase's log probabilities, weighed against none at all",
    "max": "the largest that any paraphrase gives a token, which sum to more than 100 %",
}
"""What a step's probabilities are, by the method's fusion."""


def print_explanation(explanation: Explanation, console: Console | None = None) -> None:
    """Print it, at most 100 columns wide: the summary, the segments, and for each answer its steps."""
    width = min(WIDTH, Console().width) if sys.stdout.isatty() else WIDTH
    console = console or Console(width=width)
    console.print(Text(printable(explanation.row_id), "bold"))
    print_facts(facts(explanation), console)
    console.print()
    print_table(segments_table(explanation), console)
    for index, answer in enumerate(explanation.answers[:MAX_ANSWERS]):
        if answer.steps:
            console.print(Text(f"\n{answer_title(explanation, index)}", "bold"))
            print_table(steps_table(answer, explanation.segment_names), console)
    if rest := explanation.answers[MAX_ANSWERS:]:
        console.print(Text(f"... and {len(rest)} more answers; --json has them all", "dim"))
    console.print(Text(f"\n{note(explanation)}", "dim"))


def facts(explanation: Explanation) -> Iterator[Fact]:
    """The summary, in the order in which it is read."""
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
        count = len(explanation.answers)
        of_several = f"   (answer {explanation.chosen + 1} of {count})" if count > 1 else ""
        yield Fact("prediction", one_line(answer.text) + of_several)
        yield _match(explanation)
        reason = answer.generation.finish_reason
        yield Fact("finished", f"{reason}, after {_tokens(len(answer.steps))}")
        yield Fact("backend", _backend(answer))
        yield _dense(explanation)
    yield from _committed(explanation)


def _match(explanation: Explanation) -> Fact:
    if explanation.correct is None:
        return Fact("exact match", "not scored: the row has no accepted answers")
    shown = first_few(map(one_line, explanation.accepted or ()), MAX_NAMED, " | ")
    text = f"{'yes' if explanation.correct else 'no'}; accepted: {shown}"
    return Fact("exact match", text, "good" if explanation.correct else "bad")


def _backend(answer: ExplainedAnswer) -> str:
    generation = answer.generation
    text = str(generation.backend_used)
    if generation.backend_used != generation.backend_requested:
        text += f", in place of {generation.backend_requested}"
    if generation.fallback_reason:
        text += f": {generation.fallback_reason}"
    return text if generation.attempts == 1 else f"{text} ({generation.attempts} attempts)"


def _dense(explanation: Explanation) -> Fact:
    """Whether the dense pass agrees with the engine."""
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
    return Fact(
        "dense pass",
        f"another best token at {len(found)} of {steps} steps: {first_few(found, MAX_NAMED)}",
        "bad",
    )


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


def answer_title(explanation: Explanation, index: int) -> str:
    """Which answer it is."""
    answer = explanation.answers[index]
    if len(explanation.answers) == 1:
        return "Answer"
    alone = f", of P{answer.sequences[0].paraphrase} alone" if answer.sequences else ""
    drawn = f", drawn (temperature {answer.draw.temperature:g})" if answer.draw else ""
    chosen = ", the row's prediction" if index == explanation.chosen else ""
    return f"Answer {index + 1}{alone}{drawn}{chosen}: {one_line(answer.text)}"


def label(sequence: SequenceAttention, answer: ExplainedAnswer) -> str:
    """Names a sequence among those that it is fused with; "" if it is the only one."""
    several = len(answer.sequences) > 1
    return f"P{sequence.paraphrase}, weight {sequence.weight:.2g}" if several else ""


def segments_table(explanation: Explanation) -> Table:
    """Those that the sequences share, then the answer prefix and the answer of each sequence."""
    named = [(segment.name, segment) for segment in explanation.segments]
    for number, answer in enumerate(explanation.answers, 1):
        for sequence in answer.sequences:
            of = f" of P{sequence.paraphrase}" if len(answer.sequences) > 1 else ""
            of = of or (f" {number}" if len(explanation.answers) > 1 else "")
            named += [(segment.name + of, segment) for segment in sequence.segments]
    rows = [(name, f"{len(s.tokens)}", _positions(s), _text(s)) for name, s in named]
    return Table(("segment", "#tokens", "#positions", "text"), rows)


def steps_table(answer: ExplainedAnswer, names: tuple[str, ...]) -> Table:
    """A line for each token: what it was chosen from, and what the query that chose it looked at.

    Args:
        names: [P], of the segments.
    """
    rows = []
    for number, step in enumerate(answer.steps):
        best = "  ".join(f"{_quoted(c.text)} {percentage(c.probability)}" for c in step.top)
        if step.rank > 1:
            best += f"  (chosen: rank {step.rank}, behind by {step.gap:.2g} in log probability)"
        attention = []
        for sequence in answer.sequences:
            shares = sorted(zip(sequence.attention[number].tolist(), names, strict=True), key=lambda s: -s[0])
            most = "  ".join(f"{name} {percentage(share)}" for share, name in shares[:MAX_SEGMENTS] if share)
            of = label(sequence, answer)
            attention.append(f"{of}: {most}" if of else most)
        tone: Tone = "bad" if step.rank > 1 and answer.draw is None else "strong"
        chosen, chance = Toned(_quoted(step.text), tone), percentage(step.probability)
        rows.append((f"{number + 1}", chosen, chance, best, "\n".join(attention)))
    return Table(("#step", "chosen", "#%", "best, %", "attention, %"), rows)


def note(explanation: Explanation) -> str:
    """What the steps' numbers are."""
    chances = PROBABILITIES[explanation.fusion]
    return (
        f"%: by the dense pass, {chances}. attention: of the query that chose the token, mean of heads and "
        f"layers; the {MAX_SEGMENTS} segments that get most."
    )


def _text(segment: SegmentTokens) -> str:
    return one_line("".join(token.text for token in segment.tokens))


def _quoted(text: str) -> str:
    """A token, so that its spaces can be seen."""
    return f'"{one_line(text)}"'


def _positions(segment: SegmentTokens) -> str:
    """The RoPE positions of a segment's tokens, which are consecutive."""
    if not segment.tokens:
        return "-"
    first, last = segment.tokens[0].position, segment.tokens[-1].position
    return str(first) if first == last else f"{first}-{last}"
