"""The growth figure: four panels, samples per second over what grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.tables import AXIS_TITLES


def draw_growth(entry: dict[str, Any], path: Path) -> Path:
    """Draw the growth part of one shape into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(14, 3.4), layout="constrained")
    for panel, (axis, title) in zip(panels, AXIS_TITLES.items(), strict=True):
        points = entry["growth"].get(axis, [])
        values = [point["value"] for point in points]
        panel.plot(values, [point["samples_per_second"] for point in points], marker="o", color="#1f5fa8")
        # few values far apart, 0 among the contexts: a logarithm that has a zero
        panel.set_xscale("symlog", base=2, linthresh=64 if axis == "context" else 1)
        panel.set_xticks(values, [str(v) for v in values], rotation=45, fontsize=8)
        panel.minorticks_off()
        panel.set_ylim(0, 1.1 * max((point["samples_per_second"] for point in points), default=1))
        panel.set_xlabel(title)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("samples/s")
    figure.suptitle(f"{entry['title']}, {entry['dtype']}: flexray, shared_context/restart")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path
