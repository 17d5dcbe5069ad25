"""An explanation on the console: it fits, and what data hold stays text."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from flexray.engine.generation import Generation
from flexray.methods import SamplingParams
from flexray.report.explain.explanation import (
    Candidate,
    ExplainedAnswer,
    Explanation,
    SegmentTokens,
    SequenceAttention,
    Step,
    Token,
)
from flexray.report.explain.show import facts, print_explanation
from tests.unit.sink.builders import row as output_row

LAYERS, WIDTH = 2, 100
NASTY = ["</script><b>", "\x1b[2J\n", "‮gnp.exe", "日本"]


def segment(name, texts, start=0):
    return SegmentTokens(
        name=name, tokens=tuple(Token(id=i, text=t, position=start + i) for i, t in enumerate(texts))
    )


def sequence(names, steps, paraphrase=None, weight=1.0):
    """Attention that goes to all segments, or to those of one paraphrase, in equal shares."""
    seen = np.array([paraphrase is None or n[0] != "P" or n == f"P{paraphrase}" for n in names], float)
    attention = np.broadcast_to(seen / seen.sum(), (steps, LAYERS, len(names)))
    own = (segment("answer_prefix", ["\n", "A:"], 9), segment("answer", [" Rome", "\n"][:steps], 11))
    return SequenceAttention(paraphrase=paraphrase, weight=weight, segments=own, attention_by_layer=attention)


def answer(names, text=" Rome", paraphrase=None, sequences=None, **changes):
    tops = [
        (Candidate(id=7, text=text, probability=0.75), Candidate(id=8, text=" Paris", probability=0.125)),
        (Candidate(id=9, text="\n", probability=0.5), Candidate(id=7, text=text, probability=0.0001)),
    ]
    steps = tuple(
        Step(id=t[0].id, text=t[0].text, probability=t[0].probability, rank=1, gap=0.0, top=t) for t in tops
    )
    made = ExplainedAnswer(
        generation=Generation(
            token_ids=(7, 9), finish_reason="newline", backend_requested="flex", backend_used="flex"
        ),
        text=text.strip(),
        draw=None,
        steps=steps,
        sequences=sequences or (sequence(names, 2, paraphrase),),
    )
    return dataclasses.replace(made, **changes)


ROW = output_row(
    "qa/test/a",
    "",
    source_file="f.jsonl",
    source_row=3,
    question="Where?",
    answers=["Rome"],
    method="attention/shared_context/restart",
    prediction="Rome",
)


def explanation(paraphrases=2, row=(), **changes) -> Explanation:
    paraphrase_names = [f"P{i + 1}" for i in range(paraphrases)]
    names = ("context", *paraphrase_names, "answer_prefix", "answer")
    made = Explanation(
        flexray="0",
        model="m",
        device="cpu",
        dtype="float32",
        row=ROW | dict(row),
        fusion=None,
        segments=(
            segment("context", ["Answer", "."]),
            *(segment(n, ["Where", "?"], 2) for n in paraphrase_names),
        ),
        answers=(answer(names),),
        chosen=0,
        committed="nothing to compare with",
        same_tokens=None,
    )
    return dataclasses.replace(made, **changes)


def shown(explained, terminal=False):
    file = io.StringIO()
    print_explanation(explained, Console(width=WIDTH, file=file, force_terminal=terminal))
    return file.getvalue()


def lines(text):
    return [line.split() for line in text.splitlines()]


def line_of(explained, name):
    (found,) = [line for line in facts(explained) if line.name == name]
    return found


def test_the_terminal_shows_segments_steps_and_shares():
    text = shown(explanation())
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert ["P2", "2", "2-3", "Where?"] in lines(text)
    assert ["answer_prefix", "2", "9-10", "\\nA:"] in lines(text)
    assert '" Rome"   75.0%   " Rome" 75.0%  " Paris" 12.5%   context 20.0%  P1 20.0%' in text
    assert ["step", "chosen", "%", "best", "attention"] in lines(text)
    assert "\x1b[1m" in shown(explanation(), terminal=True)


def test_of_many_paraphrases_those_that_get_most_attention_are_named():
    explained = explanation(paraphrases=30)
    sequence = explained.answers[0].sequences[0]
    attention = np.array(sequence.attention_by_layer)
    attention[:, :, 7] = 0.5
    more = dataclasses.replace(sequence, attention_by_layer=attention)
    answered = dataclasses.replace(explained.answers[0], sequences=(more,))
    text = shown(dataclasses.replace(explained, answers=(answered,)))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "P7 50.0%  context 3.0%  P1 3.0%" in text


def test_sequences_that_are_fused_have_a_line_each_without_those_they_do_not_see():
    names = explanation().segment_names
    sequences = tuple(sequence(names, 2, paraphrase=i, weight=0.5) for i in (1, 2))
    explained = explanation(fusion="mean", answers=(answer(names, sequences=sequences),))
    text = shown(explained)
    for name in ("P1", "P2"):
        assert f"{name}, weight 0.5: context 25.0%  {name} 25.0%" in text
    assert ["answer_prefix", "of", "P1", "2", "9-10", "\\nA:"] in lines(text)


def test_several_answers_have_a_heading_each_and_a_limit():
    names = explanation().segment_names
    each = tuple(answer(names, text=f" no{i}", paraphrase=1 + i % 2) for i in range(12))
    text = shown(explanation(answers=each, chosen=1))
    assert ["answer_prefix", "1", "2", "9-10", "\\nA:"] in lines(text)
    assert "Answer 2, of P2 alone, the row's prediction: no1" in text
    assert "Answer 10, of P2 alone: no9" in text
    assert "... and 2 more answers" in text


def test_a_token_that_the_dense_pass_would_not_choose_is_pointed_at():
    names = explanation().segment_names
    good = answer(names)
    wrong = dataclasses.replace(good.steps[1], id=8, text=" Paris", probability=0.4, rank=3, gap=0.0123)
    explained = explanation(answers=(answer(names, steps=(good.steps[0], wrong)),))
    found = line_of(explained, "dense pass")
    assert found.text == "another best token at 1 of 2 steps: answer 1 step 2 (its best is ahead by 0.012)"
    assert found.tone == "bad"
    assert "rank 3, behind by 0.012" in " ".join(shown(explained).split())
    drawn = explanation(answers=(answer(names, steps=(good.steps[0], wrong), draw=SamplingParams(0.7)),))
    assert line_of(drawn, "dense pass").tone == ""
    given = dataclasses.replace(good.generation, candidate_scores=(-1.0, -2.0))  # its tokens, too
    said = answer(names, steps=(good.steps[0], wrong), generation=given)
    assert (line_of(explanation(answers=(said,)), "dense pass").tone, said.disagreements) == ("", [])


@pytest.mark.parametrize(("same", "tone"), [(None, ""), (True, "good"), (False, "bad")])
def test_the_committed_row_is_compared(same, tone):
    found = line_of(explanation(committed="'Rome', by flex", same_tokens=same), "committed")
    assert (found.text, found.tone) == ("'Rome', by flex", tone)


def test_a_fallback_says_which_backend_and_why():
    explained = explanation(
        row={"backend_used": "eager", "fallback_reason": "flex: broken", "attempts": 3},
    )
    assert line_of(explained, "backend").text == "eager, in place of flex: flex: broken (3 attempts)"


def test_a_row_that_could_not_be_answered_shows_its_error_and_segments():
    failed = Generation(finish_reason="error", backend_requested="flex", error="no backend could answer")
    unanswered = ExplainedAnswer(generation=failed, text="", draw=None, steps=(), sequences=())
    explained = explanation(answers=(unanswered,), row={"error": failed.error, "correct": None})
    text = shown(explained)
    assert "no backend could answer" in text
    assert ["P1", "2", "2-3", "Where?"] in lines(text)


def test_whatever_data_hold_stays_text():
    names = explanation().segment_names
    nasty = "".join(NASTY) + "[red]x[/]"
    explained = explanation(
        row={"row_id": f"qa/test/{nasty}", "question": nasty, "answers": [nasty]},
        segments=(segment("context", NASTY), *explanation().segments[1:]),
        answers=(answer(names, text=nasty),),
    )
    text = shown(explained)
    assert not {"\x1b", "‮"} & set(text)
    assert "日本" in text
    assert "[red]x[/]" in text
