"""A mask as a small picture for the terminal: rows are queries, columns keys.

A filled cell has the colour of its key's segment, so that a row shows what its query sees.
"""

from __future__ import annotations

import numpy as np
from rich.cells import set_cell_size
from rich.text import Text

from flexray.masks.stream import Segment
from flexray.report.formatting import one_line
from flexray.report.mask_picture import MaskPicture

MAX_TOKEN_ROWS = 28  # up to here each row has a line of its own, with its token
MAX_CELLS = 60  # up to here each token has a row and a column of its own
LABEL_WIDTH = 12  # terminal cells for a token's text
LEGEND_WIDTH = 78
HIDDEN = "·"  # a key in the past that the query must not see


def render_mask_text(picture: MaskPicture) -> Text:
    """Draw a mask; `str()` of the result is the picture without colours.

    Up to 28 tokens each row is a line with its token's text; beyond, a line holds two rows. Beyond 60
    tokens several neighbours of one segment share a row or column, and the caption says how many.
    """
    out = Text(no_wrap=True, overflow="ignore")
    size, segments, cells = _pool(picture)
    if len(picture.mask) <= MAX_TOKEN_ROWS:
        _draw_token_rows(out, cells, segments, picture)
    else:
        _draw_half_blocks(out, cells, segments, picture.colours)
    out.append("\n")
    _draw_legend(out, picture)
    out.append(f"row: query, column: key, {HIDDEN} isolated\n{picture.counts()}", "dim")
    if size > 1:
        out.append(
            f"\nup to {size} neighbouring tokens of one segment share a row and a column:"
            "\na cell is filled if any of its pairs is visible",
            "dim",
        )
    return out


def _pool(picture: MaskPicture) -> tuple[int, list[Segment], np.ndarray]:
    """Merge neighbouring tokens into cells, at most MAX_CELLS a side, or one a segment if there are more
    segments.

    No cell crosses a segment's border, so it shows one pair of segments. It is filled if any of its pairs is
    visible: even a single leaking pair is seen.

    Returns:
        Tokens of a cell at most; the segments, counted in cells; bool [cells, cells].
    """
    size, longest = 1, max(map(len, picture.segments))
    while sum(-(-len(s) // size) for s in picture.segments) > MAX_CELLS and size < longest:
        size += 1
    starts = [i for s in picture.segments for i in range(s.start, s.stop, size)]
    borders = [*np.searchsorted(starts, [s.start for s in picture.segments]).tolist(), len(starts)]
    segments = [Segment(s.name, *borders[number : number + 2]) for number, s in enumerate(picture.segments)]
    rows = np.logical_or.reduceat(picture.mask, starts, axis=0)
    return size, segments, np.logical_or.reduceat(rows, starts, axis=1)


def _draw_token_rows(out: Text, cells: np.ndarray, segments: list[Segment], picture: MaskPicture) -> None:
    colours = picture.colours
    margin = max(len(s.name) for s in segments)
    names = [s.name for s in segments for _ in range(len(s))]
    _draw_header(out, segments, colours, margin + 1 + LABEL_WIDTH + 1, cell_width=2)
    first = {s.start: s.name for s in segments}
    for q, (name, label) in enumerate(zip(names, picture.labels, strict=True)):
        out.append(first.get(q, "").rjust(margin) + " ", colours[name])
        out.append(set_cell_size(one_line(label), LABEL_WIDTH) + " ")
        for kv, key_name in enumerate(names):
            if cells[q, kv]:
                out.append("██", colours[key_name])
            else:
                out.append(f"{HIDDEN} " if kv <= q else "  ", "dim")
        out.append("\n")


def _draw_half_blocks(out: Text, cells: np.ndarray, segments: list[Segment], colours: dict[str, str]) -> None:
    """Two rows a line keep the picture square. Names of short segments may meet on one line."""
    lines = [" ".join(s.name for s in segments if s.start // 2 == i) for i in range(-(-len(cells) // 2))]
    margin = max(map(len, lines))
    names = [s.name for s in segments for _ in range(len(s))]
    _draw_header(out, segments, colours, margin + 1, cell_width=1)
    padded = np.pad(cells, ((0, 1), (0, 0)))
    for line, text in enumerate(lines):
        out.append(text.rjust(margin) + " ")
        for kv, (top, bottom) in enumerate(zip(*padded[2 * line : 2 * line + 2], strict=True)):
            if top or bottom:
                out.append("█" if top and bottom else "▀" if top else "▄", colours[names[kv]])
            else:
                out.append(HIDDEN if kv <= 2 * line else " ", "dim")
        out.append("\n")


def _draw_header(
    out: Text, segments: list[Segment], colours: dict[str, str], margin: int, cell_width: int
) -> None:
    """Write each name above its first column, on as many lines as keep the names apart."""
    lines: list[Text] = []
    for s in segments:
        column = s.start * cell_width
        line = next((line for line in lines if len(line) < column), None)
        if line is None:
            lines.append(line := Text())
        line.append(" " * (column - len(line))).append(s.name, colours[s.name])
    for line in reversed(lines):
        out.append(" " * margin).append(line).append("\n")


def _draw_legend(out: Text, picture: MaskPicture) -> None:
    """Each segment's colour and token range, in lines that a terminal need not wrap."""
    colours, used = picture.colours, 0
    for s in picture.segments:
        entry = f"{s.name} {s.start}" if len(s) == 1 else f"{s.name} {s.start}-{s.stop - 1}"
        if used and used + len(entry) + 5 > LEGEND_WIDTH:
            out.append("\n")
            used = 0
        gap = "   " if used else ""
        out.append(f"{gap}■ ", colours[s.name]).append(entry)
        used += len(gap) + 2 + len(entry)
    out.append("\n")
