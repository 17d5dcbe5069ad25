"""A mask to be drawn, with its tokens, segments and colours: as text for the terminal, and as PNG.

Rows are queries, columns keys. A filled cell has the colour of its key's segment, so that a row shows what
its query sees.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from rich.cells import set_cell_size
from rich.text import Text

from flexray.masks.stream import Segment, Stream
from flexray.report.formatting import one_line

CONTEXT_COLOUR, ANSWER_COLOUR = "#8a99b0", "#d1495b"
PARAPHRASE_COLOURS = ("#1f7a8c", "#e8a33d", "#5a9e6f", "#7a5ea8", "#c77dae", "#3f6fb5", "#a8763e", "#94a83b")
HIDDEN, HIDDEN_COLOUR = "·", "#ececef"  # a key in the past that the query must not see
MAX_CELLS = 36  # a side of the text; up to here each token has a row and a column of its own
LABEL_WIDTH = 12  # terminal cells for a token's text


@dataclass(frozen=True, slots=True)
class MaskPicture:
    """A mask of L tokens."""

    mask: np.ndarray  # bool [L, L], rows are queries, columns keys
    segments: list[Segment]  # in order; none is empty
    labels: list[str]  # [L], the tokens' texts, which may hold anything
    positions: np.ndarray  # int [L], RoPE

    @classmethod
    def of(cls, stream: Stream, text_of: Callable[[int], str]) -> MaskPicture:
        """A stream's mask. A sequence's answer prefix and answer are drawn as one segment, with the
        sequence's number if there are several.

        Args:
            text_of: the text of a token id.
        """
        several = len(stream.queries) > 1
        segments: list[Segment] = []
        for s in stream.segments:
            if s.name == "answer_prefix":
                continue
            if s.sequence is not None:
                name = f"answer {s.sequence + 1}" if several else "answer"
                s = Segment(name, segments[-1].stop, s.stop, s.sequence)
            segments.append(s)
        labels = [text_of(i) for i in stream.token_ids.tolist()]
        return cls(stream.mask(), [s for s in segments if len(s)], labels, stream.positions)

    def counts(self) -> str:
        """How much of the causal triangle is visible, in words."""
        L = len(self.mask)
        causal, visible = L * (L + 1) // 2, int(self.mask.sum())
        return f"{L:,} tokens, {visible:,} of {causal:,} causal pairs visible ({visible / causal:.0%})"


def colour_of(name: str) -> str:
    """The hex colour of a segment, by its name. Copies and parts of the context have that of the context;
    more than eight paraphrases repeat theirs.

    >>> [colour_of(name) == CONTEXT_COLOUR for name in ("context", "C12", "F1P2", "C12.F1P2", "P1", "answer")]
    [True, True, True, True, False, False]
    """
    if name.startswith("answer"):
        return ANSWER_COLOUR
    if name.startswith("P"):
        return PARAPHRASE_COLOURS[(int(name[1:]) - 1) % len(PARAPHRASE_COLOURS)]
    return CONTEXT_COLOUR


def render_mask_text(picture: MaskPicture) -> Text:
    """Draw a mask; `str()` of the result is the picture without colours.

    Up to 36 tokens each row has its token's text. Beyond, neighbours of one segment share a row and a column:
    a row has their numbers, and the caption says how many they are.
    """
    size, cells = _pool(picture)
    starts = [cell.start for cell in cells]
    # filled if any of its pairs is visible: even a single leaking pair is seen
    seen = np.logical_or.reduceat(np.logical_or.reduceat(picture.mask, starts, axis=0), starts, axis=1)
    margin = max(len(cell.name) for cell in cells)
    out = Text(" " * (margin + LABEL_WIDTH + 2))
    for name, same in groupby(cell.name for cell in cells):
        width = 2 * len(list(same))
        out.append((name if len(name) < width else "").ljust(width), colour_of(name))
    for query, cell in enumerate(cells):
        is_first = query == 0 or cells[query - 1].name != cell.name
        label = f"{cell.start}-{cell.stop - 1}" if size > 1 else one_line(picture.labels[cell.start])
        out.append("\n" + (cell.name if is_first else "").rjust(margin), colour_of(cell.name))
        out.append(f" {set_cell_size(label, LABEL_WIDTH)} ")
        for key, key_cell in enumerate(cells):
            if seen[query, key]:
                out.append("██", colour_of(key_cell.name))
            else:
                out.append(f"{HIDDEN} " if key <= query else "  ", "dim")
    out.append(f"\n\nrow: query, column: key, {HIDDEN} isolated\n{picture.counts()}", "dim")
    if size > 1:
        shared = f"\nup to {size} neighbouring tokens of one segment share a row and a column:"
        out.append(f"{shared}\na cell is filled if any of its pairs is visible", "dim")
    return out


def _pool(picture: MaskPicture) -> tuple[int, list[Segment]]:
    """Merge neighbouring tokens of a segment into cells, at most MAX_CELLS a side, or one a segment if there
    are more segments. Returns the tokens of a cell at most, and the cells."""
    size, longest = 1, max(map(len, picture.segments))
    while sum(-(-len(s) // size) for s in picture.segments) > MAX_CELLS and size < longest:
        size += 1
    return size, [
        Segment(s.name, start, min(start + size, s.stop))
        for s in picture.segments
        for start in range(s.start, s.stop, size)
    ]


def mask_png(picture: MaskPicture, *, title: str) -> bytes:
    """Draw a mask, one cell a token (about 1300 x 1300 pixels).

    Args:
        title: what mask it is.
    """
    segments, length = picture.segments, len(picture.mask)
    colours = np.repeat([to_rgb(colour_of(s.name)) for s in segments], list(map(len, segments)), axis=0)
    unseen = np.where(np.tri(length, dtype=bool)[..., None], to_rgb(HIDDEN_COLOUR), 1.0)
    figure = Figure(figsize=(8.5, 8.5), dpi=150, layout="constrained")  # without pyplot's global state
    axes = figure.add_subplot()
    axes.imshow(np.where(picture.mask[..., None], colours[None], unseen), interpolation="nearest")
    borders = [s.start - 0.5 for s in segments[1:]]
    for lines in (axes.hlines, axes.vlines):
        lines(borders, -0.5, length - 0.5, color="black", linewidth=0.8, alpha=0.4)
    centres = [(s.start + s.stop - 1) / 2 for s in segments]
    size = 10 if len(segments) <= 16 else 8 if len(segments) <= 32 else 5
    axes.set_xticks(centres, [s.name for s in segments], rotation=90, fontsize=size)
    ends = [picture.positions[[s.start, s.stop - 1]] for s in segments]
    names = [f"{s.name}  {first}–{last}" for s, (first, last) in zip(segments, ends, strict=True)]
    axes.set_yticks(centres, names, fontsize=size)
    axes.set_xlabel("key; grey: isolated, white: in the future")
    axes.set_ylabel("query (with position ids)")
    axes.set_title(f"Attention mask: {title}\n{picture.counts()}", loc="left")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
