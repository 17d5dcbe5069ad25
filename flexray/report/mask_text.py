"""A mask as a small picture for the terminal: rows are queries, columns keys.

A filled cell has the colour of its key's segment, so that a row shows what its query sees.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
from rich.cells import set_cell_size
from rich.text import Text

from flexray.masks.stream import Segment
from flexray.report.formatting import one_line
from flexray.report.mask_picture import MaskPicture, colour_of

MAX_CELLS = 36  # a side; up to here each token has a row and a column of its own
LABEL_WIDTH = 12  # terminal cells for a token's text
HIDDEN = "·"  # a key in the past that the query must not see


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
        out.append(name[:width].ljust(width), colour_of(name))
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
