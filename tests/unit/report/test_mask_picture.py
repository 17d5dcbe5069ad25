"""The pictures show the mask as it is: no pair is added, lost or moved, and downsampling is owned up to."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.masks.stream import make_stream
from flexray.prompts.prompt import Prompt
from flexray.report.mask_picture import (
    ANSWER_COLOUR,
    CONTEXT_COLOUR,
    MaskPicture,
    colour_of,
    mask_png,
    render_mask_text,
)
from tests.unit.report.pictures import picture_of


def sample(context: int, paraphrases: list[int], answer: int) -> tuple[np.ndarray, list[str]]:
    """The definition, literally: causal, and answer or context or same segment."""
    names = ["context"] * context
    for number, length in enumerate(paraphrases, start=1):
        names += [f"P{number}"] * length
    names += ["answer"] * answer
    name = np.array(names)
    seen = (name == "answer")[:, None] | (name == "context")[None, :] | (name[:, None] == name[None, :])
    return np.tri(len(names), dtype=bool) & seen, names


def grid(text: str, margin: int, lines: slice) -> list[str]:
    return [row[margin:] for row in text.splitlines()[lines]]


def test_a_small_mask_shows_each_token_and_each_pair():
    mask, names = sample(2, [2, 1], 1)
    text = str(render_mask_text(picture_of(mask, ["<s>", "Q", "a", "b", "c", ":"], names)))
    margin = len("context ") + 12 + 1
    assert grid(text, margin, slice(0, 1)) == ["    P1      "]
    assert [row.rstrip() for row in grid(text, margin, slice(1, 7))] == [
        "██",
        "████",
        "██████",
        "████████",
        "████· · ██",
        "████████████",
    ]
    assert "context <s>" in text
    assert "     P1 a" in text
    assert "6 tokens, 19 of 21 causal pairs visible (90%)" in text
    assert "share" not in text


def test_a_large_mask_is_pooled_and_says_so():
    mask, names = sample(136, [24, 20, 31], 16)
    picture = render_mask_text(picture_of(mask, names, names))
    text = str(picture)
    assert "up to 7 neighbouring tokens of one segment share a row and a column" in text
    assert "context 0-6 " in text
    assert "     P3 180-186 " in text
    assert max(map(len, text.splitlines())) <= 100
    assert f"{len(mask)} tokens, {mask.sum():,} of" in text


def test_a_single_leaking_pair_stays_in_sight():
    mask, names = sample(100, [100, 100], 50)
    sound = str(render_mask_text(picture_of(mask, names, names)))
    mask[250, 150] = True  # P2 sees one token of P1
    leaking = str(render_mask_text(picture_of(mask, names, names)))
    changed = [
        (a, b) for a, b in zip(sound.splitlines(), leaking.splitlines(), strict=True) if a != b and "█" in a
    ]
    assert len(changed) == 1


def test_more_segments_than_columns_keep_one_column_each():
    mask, names = sample(10, [3] * 80, 5)
    text = str(render_mask_text(picture_of(mask, names, names)))
    assert "P80" in text
    assert "    P80 247-249 " in text


def test_a_cell_has_the_colour_of_its_keys_segment():
    mask, names = sample(2, [2, 1], 1)
    picture = render_mask_text(picture_of(mask, names, names))
    row = picture.split("\n")[6]  # the answer's row: it sees everything
    colours = [str(span.style) for span in row.spans if row.plain[span.start : span.end] == "██"]
    assert colours == [colour_of(name) for name in names]
    assert (colours[0], colours[-1]) == (CONTEXT_COLOUR, ANSWER_COLOUR)


def test_token_texts_are_neither_markup_nor_line_breaks():
    mask, names = sample(1, [1], 1)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render_mask_text(picture_of(mask, ["[red]x[/]", "\n\t\x1b", "日本語日本語日本語"], names)))
    lines = console.export_text().splitlines()
    rows = [line for line in lines if "██" in line]
    assert "[red]x[/]" in rows[0]
    assert r"\n\t\x1b" in rows[1]
    assert len(rows) == 3


def test_one_token_is_a_picture_too():
    assert "1 tokens, 1 of 1 causal pairs" in str(
        render_mask_text(picture_of(np.ones((1, 1), bool), ["x"], ["answer"]))
    )


def test_segments_and_colours_follow_the_names():
    prompt = Prompt((1,), ((2,), (3, 4)), (5,))
    stream = make_stream(prompt, SharedPrefix(copies=True), (AttentionScope(),), [()])
    picture = MaskPicture.of(stream, str)
    segments = [(s.name, s.start, s.stop) for s in picture.segments]
    assert segments[3:] == [("P2", 3, 5), ("answer", 5, 6)]
    assert colour_of("C1") == colour_of("C2") == CONTEXT_COLOUR
    assert len({colour_of(n) for n in ("C1", "P1", "P2", "answer")}) == 4


@pytest.mark.parametrize("parts", [(3, [2, 2], 2), (136, [24] * 5, 16), (20, [9] * 20, 6)])
def test_the_png_is_a_picture_of_a_readable_size(parts):
    mask, names = sample(*parts)
    pixels = imread(io.BytesIO(mask_png(picture_of(mask, names, names), title="layout shared_context")))
    height, width = pixels.shape[:2]
    assert 1200 < width < 2000
    assert 1000 < height < 1600
    assert (pixels[:5, :, :3] == 1).all()  # a white margin: nothing is cut off at the top
    assert (pixels[:, :5, :3] == 1).all()
