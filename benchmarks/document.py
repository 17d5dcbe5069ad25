"""Write docs/benchmarks.md from result files: `python -m benchmarks.document RESULT.json...`.

Every figure comes from a result file; where it stands, and what was tried and why, is
written by hand, in benchmarks/headline.md and log.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import jinja2
import typer

from benchmarks.plot import draw_beside_vllm, draw_growth
from benchmarks.tables import heading, last_line, tables_of

HERE = Path(__file__).resolve().parent


def write_document(results: list[dict[str, Any]], docs: Path) -> Path:
    """docs/benchmarks.md, and its pictures in docs/pictures."""
    runs, beside_vllm = [], []
    for result in results:
        shapes = []
        for name, entry in result["shapes"].items():
            tables = tables_of(entry, result["machine"]["device"])
            if entry.get("vllm"):
                picture = f"pictures/vllm-{name}.png"
                draw_beside_vllm(entry, docs / picture)
                beside_vllm.append({**result, "table": next(tables).for_markdown(), "picture": picture})
            if not entry.get("flexray") and not entry.get("growth"):
                continue
            picture = f"pictures/growth-{name}.png" if any(entry.get("growth", {}).values()) else ""
            if picture:
                draw_growth(entry, docs / picture)
            shapes.append(
                {
                    "title": f"{entry['title']}, {entry['dtype']}",
                    "tables": [table.for_markdown() for table in tables],
                    "ratios": last_line(entry) if entry.get("flexray") else None,
                    "picture": picture,
                }
            )
        if shapes:
            runs.append({**result, "heading": heading(result), "shapes": shapes})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, of our own results
    )
    text = environment.get_template("benchmarks.md.j2").render(
        runs=runs,
        beside_vllm=beside_vllm,
        headline=(HERE / "headline.md").read_text(encoding="utf-8").strip(),
        log=(HERE / "log.md").read_text(encoding="utf-8").strip(),
    )
    path = docs / "benchmarks.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def main(
    results: Annotated[list[Path], typer.Argument(help="JSON files that python -m benchmarks wrote.")],
    docs: Annotated[Path, typer.Option(help="Folder to write into.")] = HERE.parent / "docs",
) -> None:
    """Write docs/benchmarks.md from result files, in the order given."""
    print(write_document([json.loads(path.read_text(encoding="utf-8")) for path in results], docs))


if __name__ == "__main__":
    typer.run(main)
