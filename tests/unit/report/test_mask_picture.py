"""The pictures show the mask as it is: no pair is added, lost or moved, and downsampling is owned up to."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.masks.stream import make_stream
from flexray.prompts.prompt import Prompt
from flexray.report.mask_picture import COLOURS, MaskPicture, segment_colours
from flexray.report.mask_png import mask_png
from flexray.report.mask_text import render_mask_text
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
    assert grid(text, margin, slice(0, 2)) == ["    P1    answer", "context P2"]
    assert [row.rstrip() for row in grid(text, margin, slice(2, 8))] == [
        "██",
        "████",
        "██████",
        "████████",
        "████· · ██",
        "████████████",
    ]
    assert "context <s>" in text
    assert "     P1 a" in text
    assert "context 0-1   ■ P1 2-3   ■ P2 4   ■ answer 5" in text
    assert "6 tokens, 19 of 21 causal pairs visible (90%)" in text
    assert "share" not in text


def test_a_large_mask_is_pooled_and_says_so():
    mask, names = sample(136, [24, 20, 31], 16)
    picture = render_mask_text(picture_of(mask, names, names))
    text = str(picture)
    assert "up to 7 neighbouring tokens of one segment share a row and a column" in text
    assert max(map(len, text.splitlines())) <= 80
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
    assert "■ P80 247-249" in text


def test_a_cell_has_the_colour_of_its_keys_segment():
    mask, names = sample(2, [2, 1], 1)
    picture = render_mask_text(picture_of(mask, names, names))
    row = picture.split("\n")[7]  # the answer's row: it sees everything
    colours = [str(span.style) for span in row.spans if row.plain[span.start : span.end] == "██"]
    expected = segment_colours(names)
    assert colours == [expected[name] for name in names]
    assert (colours[0], colours[-1]) == (COLOURS["context"], COLOURS["answer"])


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


@pytest.mark.parametrize(
    ("mask", "labels", "segments"),
    [
        (np.ones((2, 3), bool), ["a"] * 2, ["P1"] * 2),
        (np.ones((2, 2), int), ["a"] * 2, ["P1"] * 2),
        (np.ones((0, 0), bool), [], []),
        (np.ones((2, 2), bool), ["a"] * 3, ["P1"] * 2),
        (np.ones((2, 2), bool), ["a"] * 2, ["P1"] * 3),
    ],
)
def test_a_mask_of_another_shape_is_refused(mask, labels, segments):
    with pytest.raises(ValueError, match="mask"):
        render_mask_text(picture_of(mask, labels, segments))


def test_segments_and_colours_follow_the_names():
    prompt = Prompt((1,), ((2,), (3, 4)), (5,))
    stream = make_stream(prompt, SharedPrefix(copies=True), (AttentionScope(),), [()])
    picture = MaskPicture.of(stream, str)
    segments = [(s.name, s.start, s.stop) for s in picture.segments]
    assert segments[3:] == [("P2", 3, 5), ("answer", 5, 6)]
    colours = picture.colours
    assert colours["C1"] == colours["C2"] == COLOURS["context"]
    assert len({colours[n] for n in ("C1", "P1", "P2", "answer")}) == 4


@pytest.mark.parametrize("parts", [(3, [2, 2], 2), (136, [24] * 5, 16), (20, [9] * 20, 6)])
def test_the_png_is_a_picture_of_a_readable_size(parts):
    mask, names = sample(*parts)
    pixels = imread(io.BytesIO(mask_png(picture_of(mask, names, names), title="layout shared_context")))
    height, width = pixels.shape[:2]
    assert 1200 < width < 2000
    assert 1000 < height < 1600
    assert (pixels[:5, :, :3] == 1).all()  # a white margin: nothing is cut off at the top
    assert (pixels[:, :5, :3] == 1).all()


def test_a_picture_needs_a_position_for_each_token():
    mask, names = sample(3, [2], 1)
    with pytest.raises(ValueError, match="position ids"):
        dataclasses.replace(picture_of(mask, names, names), positions=np.arange(3))


def test_labels_must_be_as_many_as_tokens():
    with pytest.raises(ValueError, match="3 labels"):
        picture_of(np.tri(2, dtype=bool), ["a"] * 3, ["P1", "answer"])
