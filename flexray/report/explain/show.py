"""An explanation on the console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from flexray.console.terminal import printable, standard_output
from flexray.errors import first_few
from flexray.report.explain.explanation import ExplainedAnswer, Explanation, SegmentTokens
from flexray.report.formatting import one_line, percent
from flexray.report.tables import Fact, Table, Toned, print_facts, print_table

MAX_ANSWERS = 10
MAX_NAMED = 5  # answers or steps that one line names
MAX_SEGMENTS = 4  # that are named at a step: those that get most of its attention
NOTE = (
    "%: probabilities by the dense pass, after the method's fusion. attention: of the query that chose the "
    f"token, mean of heads and layers; the {MAX_SEGMENTS} segments that get most."
)


def print_explanation(explanation: Explanation, console: Console | None = None) -> None:
    """Print it: the summary, the segments, and for each answer its steps."""
    console = console or standard_output()
    console.print(Text(printable(explanation.row["row_id"]), "bold"))
    print_facts(facts(explanation), console)
    console.print()
    print_table(segments_table(explanation), console)
    for index, answer in enumerate(explanation.answers[:MAX_ANSWERS]):
        if answer.steps:
            console.print(Text(f"\n{answer_title(explanation, index)}", "bold"))
            print_table(steps_table(answer, explanation.segment_names), console)
    if rest := explanation.answers[MAX_ANSWERS:]:
        console.print(Text(f"... and {len(rest)} more answers; --json has them all", "dim"))
    console.print(Text(f"\n{NOTE}", "dim"))


def facts(explanation: Explanation) -> Iterator[Fact]:
    """The summary, in the order in which it is read."""
    row, answer = explanation.row, explanation.answers[explanation.chosen]
    yield Fact("question", row["question"])
    yield Fact("source", f"{row['source_file']}, row {row['source_row']}")
    yield Fact("method", row["method"])
    yield Fact("model", f"{explanation.model}, {explanation.dtype} on {explanation.device}")
    if row["error"]:
        yield Fact("error", row["error"], "bad")
    else:
        yield Fact("prediction", one_line(row["prediction"]))
        if row["correct"] is None:
            yield Fact("exact match", "not scored: the row has no accepted answers")
        else:
            accepted = first_few(map(one_line, row["answers"]), MAX_NAMED, " | ")
            right, tone = ("yes", "good") if row["correct"] else ("no", "bad")
            yield Fact("exact match", f"{right}; accepted: {accepted}", tone)
        yield Fact("finished", f"{row['finish_reason']}, tokens: {len(answer.steps)}")
        yield Fact("backend", _backend(row))
        yield _dense(explanation.answers)
    tones = {None: "", True: "good", False: "bad"}
    yield Fact("committed", explanation.committed, tones[explanation.same_tokens])


def _backend(row: Mapping[str, Any]) -> str:
    text = str(row["backend_used"])
    if text != row["backend_requested"]:
        text += f", in place of {row['backend_requested']}"
    if row["fallback_reason"]:
        text += f": {row['fallback_reason']}"
    return text if row["attempts"] == 1 else f"{text} ({row['attempts']} attempts)"


def _dense(answers: Sequence[ExplainedAnswer]) -> Fact:
    """Whether the dense pass agrees with the engine."""
    steps = sum(len(answer.steps) for answer in answers if answer.is_greedy)
    if not steps:
        return Fact("dense pass", "nothing to hold against it: the tokens were drawn, or a candidate's")
    found = [
        f"answer {number} step {step} (its best is ahead by {answer.steps[step - 1].gap:.2g})"
        for number, answer in enumerate(answers, start=1)
        for step in answer.disagreements
    ]
    if not found:
        return Fact("dense pass", f"the same best token as the engine at each step ({steps})", "good")
    text = f"another best token at {len(found)} of {steps} steps: {first_few(found, MAX_NAMED)}"
    return Fact("dense pass", text, "bad")


def answer_title(explanation: Explanation, index: int) -> str:
    """Which answer it is."""
    answer = explanation.answers[index]
    alone = ""
    if len(explanation.answers) > 1 and answer.sequences:
        alone = f", of P{answer.sequences[0].paraphrase} alone"
    drawn = f", drawn (temperature {answer.draw.temperature:g})" if answer.draw else ""
    chosen = ", the row's prediction" if index == explanation.chosen else ""
    return f"Answer {index + 1}{alone}{drawn}{chosen}: {one_line(answer.text)}"


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
    rows, several = [], len(answer.sequences) > 1
    for number, step in enumerate(answer.steps):
        best = "  ".join(f"{_quoted(c.text)} {percent(c.probability)}" for c in step.top)
        if step.rank > 1:
            best += f"  (chosen: rank {step.rank}, behind by {step.gap:.2g} in log probability)"
        attention = []
        for sequence in answer.sequences:
            shares = sorted(zip(sequence.attention[number].tolist(), names, strict=True), key=lambda s: -s[0])
            most = "  ".join(f"{name} {percent(share)}" for share, name in shares[:MAX_SEGMENTS] if share)
            of = f"P{sequence.paraphrase}, weight {sequence.weight:.2g}: " if several else ""
            attention.append(of + most)
        tone = "bad" if step.rank > 1 and answer.is_greedy else "strong"
        chosen, chance = Toned(_quoted(step.text), tone), percent(step.probability)
        rows.append((f"{number + 1}", chosen, chance, best, "\n".join(attention)))
    return Table(("#step", "chosen", "#%", "best", "attention"), rows)


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
