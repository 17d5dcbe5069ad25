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

MAX_CELLS = 36  # a side; up to here each token has a row and a column of its own
LABEL_WIDTH = 12  # terminal cells for a token's text
LEGEND_WIDTH = 78
HIDDEN = "·"  # a key in the past that the query must not see


def render_mask_text(picture: MaskPicture) -> Text:
    """Draw a mask; `str()` of the result is the picture without colours.

    Up to 36 tokens each row has its token's text. Beyond, several neighbours of one segment share a row and
    a column, and the caption says how many.
    """
    out = Text(no_wrap=True, overflow="ignore")
    size, segments, cells = _pool(picture)
    colours = picture.colours
    margin = max(len(s.name) for s in segments) + 1
    names = [s.name for s in segments for _ in range(len(s))]
    labels = [set_cell_size(one_line(label), LABEL_WIDTH) + " " for label in picture.labels]
    labels = labels if size == 1 else [""] * len(cells)
    _draw_header(out, segments, colours, margin + len(labels[0]))
    first = {s.start: s.name for s in segments}
    for query, (name, label) in enumerate(zip(names, labels, strict=True)):
        out.append(first.get(query, "").rjust(margin - 1) + " ", colours[name]).append(label)
        for key, key_name in enumerate(names):
            if cells[query, key]:
                out.append("██", colours[key_name])
            else:
                out.append(f"{HIDDEN} " if key <= query else "  ", "dim")
        out.append("\n")
    out.append("\n")
    _draw_legend(out, picture)
    out.append(f"row: query, column: key, {HIDDEN} isolated\n{picture.counts()}", "dim")
    if size > 1:
        shared = f"\nup to {size} neighbouring tokens of one segment share a row and a column:"
        out.append(f"{shared}\na cell is filled if any of its pairs is visible", "dim")
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


def _draw_header(out: Text, segments: list[Segment], colours: dict[str, str], margin: int) -> None:
    """Write each name above its first column, on as many lines as keep the names apart."""
    lines: list[Text] = []
    for s in segments:
        line = next((line for line in lines if len(line) < 2 * s.start), None)
        if line is None:
            lines.append(line := Text())
        line.append(" " * (2 * s.start - len(line))).append(s.name, colours[s.name])
    for line in reversed(lines):
        out.append(" " * margin).append(line).append("\n")


def _draw_legend(out: Text, picture: MaskPicture) -> None:
    """Each segment's colour and token range, in lines that a terminal need not wrap."""
    used = 0
    for s in picture.segments:
        entry = f"{s.name} {s.start}" if len(s) == 1 else f"{s.name} {s.start}-{s.stop - 1}"
        if used and used + len(entry) + 5 > LEGEND_WIDTH:
            out.append("\n")
            used = 0
        gap = "   " if used else ""
        out.append(f"{gap}■ ", picture.colours[s.name]).append(entry)
        used += len(gap) + 2 + len(entry)
    out.append("\n")
