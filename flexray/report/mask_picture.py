"""A sample's attention mask as a small picture for the terminal: rows are queries, columns keys.

A filled cell has the colour of its key's region, so that a row shows what its query looks at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.cells import set_cell_size
from rich.text import Text

from flexray.report.regions import Run, check_mask, count_pairs, find_runs, one_line, region_colours

MAX_TOKEN_ROWS = 28  # up to here each row has a line of its own, with its token
MAX_CELLS = 60  # up to here each token has a row and a column of its own
LABEL_WIDTH = 12  # terminal cells for a token's text
LEGEND_WIDTH = 78
HIDDEN = "·"  # a key in the past that the query must not see


def render_mask_text(mask: np.ndarray, labels: Sequence[str], segments: Sequence[str]) -> Text:
    """Draw a mask; `str()` of the result is the picture without colours.

    Up to 28 tokens each row is a line with its token's text; beyond, a line holds two rows. Beyond 60
    tokens several neighbours of one segment share a row or column, and the caption says how many.

    Args:
        mask: bool [L, L], rows are queries, columns keys.
        labels: [L], the tokens' texts. Shown as they are, never as markup.
        segments: [L], names such as "context", "P1", "answer".

    Raises:
        ValueError: the mask is not bool [L, L], or labels or segments are not L.
    """
    check_mask(mask, segments)
    if len(labels) != len(mask):
        raise ValueError(f"{len(labels)} labels for a mask of {len(mask)} positions")
    L = len(mask)
    colours = region_colours(segments)

    bins = _bin_positions(find_runs(segments), MAX_CELLS)
    cells = _pool(mask, bins)
    names = [segments[start] for start, _ in bins]
    runs = find_runs(names)
    picture = Text(no_wrap=True, overflow="ignore")
    if L <= MAX_TOKEN_ROWS:
        _draw_token_rows(picture, cells, runs, names, labels, colours)
    else:
        _draw_half_blocks(picture, cells, runs, names, colours)

    picture.append("\n")
    _draw_legend(picture, find_runs(segments), colours)
    picture.append(f"row: query, column: key, {HIDDEN} isolated\n{count_pairs(mask)}", "dim")
    if len(bins) < L:
        most = max(stop - start for start, stop in bins)
        picture.append(
            f"\nup to {most} neighbouring tokens of one segment share a row and a column:"
            "\na cell is filled if any of its pairs is visible",
            "dim",
        )
    return picture


def _bin_positions(runs: list[Run], limit: int) -> list[tuple[int, int]]:
    """Cut the stream into at most `limit` bins [start, stop), or one bin a run if there are more runs.

    No bin crosses a segment's border: a cell then stands for one pair of segments, and isolation can
    neither blur nor vanish.
    """
    size = 1
    while sum(-(-(r.stop - r.start) // size) for r in runs) > limit and size < max(
        r.stop - r.start for r in runs
    ):
        size += 1
    return [(i, min(i + size, run.stop)) for run in runs for i in range(run.start, run.stop, size)]


def _pool(mask: np.ndarray, bins: list[tuple[int, int]]) -> np.ndarray:
    """bool [B, B]: whether any pair of a cell is visible. A single leaking pair stays in sight."""
    starts = [start for start, _ in bins]
    rows = np.logical_or.reduceat(mask, starts, axis=0)
    return np.logical_or.reduceat(rows, starts, axis=1)


def _draw_token_rows(
    out: Text,
    cells: np.ndarray,
    runs: list[Run],
    names: list[str],
    labels: Sequence[str],
    colours: dict[str, str],
) -> None:
    margin = max(len(run.name) for run in runs)
    _draw_header(out, runs, colours, margin + 1 + LABEL_WIDTH + 1, cell_width=2)
    first = {run.start: run.name for run in runs}
    for q in range(len(cells)):
        out.append(first.get(q, "").rjust(margin) + " ", colours[names[q]])
        out.append(set_cell_size(one_line(labels[q]), LABEL_WIDTH) + " ")
        for kv in range(len(cells)):
            if cells[q, kv]:
                out.append("██", colours[names[kv]])
            else:
                out.append(f"{HIDDEN} " if kv <= q else "  ", "dim")
        out.append("\n")


def _draw_half_blocks(
    out: Text, cells: np.ndarray, runs: list[Run], names: list[str], colours: dict[str, str]
) -> None:
    count = len(cells)
    # Two rows a line keep the picture square. Names of short segments may meet on one line.
    first = {
        line: " ".join(run.name for run in runs if run.start // 2 == line) for line in range((count + 1) // 2)
    }
    margin = max(map(len, first.values()))
    _draw_header(out, runs, colours, margin + 1, cell_width=1)
    for line, name in first.items():
        out.append(name.rjust(margin) + " ")
        top = cells[2 * line]
        bottom = cells[2 * line + 1] if 2 * line + 1 < count else np.zeros(count, bool)
        for kv in range(count):
            if top[kv] or bottom[kv]:
                out.append("█" if top[kv] and bottom[kv] else "▀" if top[kv] else "▄", colours[names[kv]])
            else:
                out.append(HIDDEN if kv <= 2 * line else " ", "dim")
        out.append("\n")


def _draw_header(out: Text, runs: list[Run], colours: dict[str, str], margin: int, cell_width: int) -> None:
    """Write each name above its first column, on as many lines as keep the names apart."""
    lines: list[list[tuple[int, Run]]] = []
    ends: list[int] = []
    for run in runs:
        column = run.start * cell_width
        line = next((i for i, end in enumerate(ends) if end < column), len(lines))
        if line == len(lines):
            lines.append([])
            ends.append(-1)
        lines[line].append((column, run))
        ends[line] = column + len(run.name)
    for entries in reversed(lines):
        out.append(" " * margin)
        at = 0
        for column, run in entries:
            out.append(" " * (column - at))
            out.append(run.name, colours[run.name])
            at = column + len(run.name)
        out.append("\n")


def _draw_legend(out: Text, runs: list[Run], colours: dict[str, str]) -> None:
    """Each segment's colour and token range, in lines that a terminal need not wrap."""
    used = 0
    for run in runs:
        span = f"{run.start}" if run.stop - run.start == 1 else f"{run.start}-{run.stop - 1}"
        entry = f"{run.name} {span}"
        if used and used + len(entry) + 5 > LEGEND_WIDTH:
            out.append("\n")
            used = 0
        gap = "   " if used else ""
        out.append(f"{gap}■ ", colours[run.name]).append(entry)
        used += len(gap) + 2 + len(entry)
    out.append("\n")
