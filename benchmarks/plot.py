"""The figures: samples per second beside vLLM, and over what grows."""

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


def draw_beside_vllm(entry: dict[str, Any], path: Path) -> Path:
    """Draw the vllm part of one shape into a PNG: two bars for each work and precision."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = entry["vllm"]["rows"]
    figure, panel = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
    for offset, (engine, color) in enumerate((("flexray", "#1f5fa8"), ("vllm", "#b0b7c3"))):
        label = engine if engine == "flexray" else f"vLLM {entry['vllm']['version']}"
        places = [number + offset * 0.4 for number in range(len(rows))]
        bars = panel.bar(places, [row[engine] for row in rows], 0.38, color=color, label=label)
        panel.bar_label(bars, fmt="%.0f", fontsize=8)
    panel.set_xticks(
        [number + 0.2 for number in range(len(rows))], [f"{row['work']}\n{row['precision']}" for row in rows]
    )
    panel.set_ylabel("samples/s")
    panel.legend(frameon=False)
    panel.set_title(entry["title"], fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def draw_jobs(results: list[dict[str, Any]], path: Path) -> Path:
    """Draw rows per second of jobs over GPUs into a PNG, and those of bare engines, dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    numbers = sorted({result["gpus"] for result in results})
    for shape in dict.fromkeys(result["shape"] for result in results):
        found = [result for result in results if result["shape"] == shape]
        x = [result["gpus"] for result in found]
        (line,) = panel.plot(x, [result["rows_per_second"] for result in found], marker="o", label=shape)
        bare = [result["actors"] * result["bare_rows_per_second"] for result in found]
        panel.plot(x, bare, linestyle="--", color=line.get_color(), alpha=0.6)
    panel.set_xticks(numbers, [str(number) for number in numbers])
    panel.set_ylim(bottom=0)
    panel.set_xlabel("GPUs; dashed: as many bare engines")
    panel.set_ylabel("rows/s")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path
