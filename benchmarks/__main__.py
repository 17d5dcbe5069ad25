"""Measure, print tables, write a JSON: `python -m benchmarks --help`, or `make bench`."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from transformers import LlamaForCausalLM
from transformers.utils import logging

from benchmarks import tables
from benchmarks.check import check
from benchmarks.engine import METHODS, measure_engine
from benchmarks.generate import measure_generate
from benchmarks.growth import measure_growth
from benchmarks.limit import measure_limit
from benchmarks.machine import describe_commit, describe_machine
from benchmarks.models import forget, free_memory, make_model
from benchmarks.plot import draw_growth
from benchmarks.script import GPU_ONLY, VARIANTS, measure_script
from benchmarks.vllm import is_installed, measure_beside_vllm
from benchmarks.work import MIXED, SHAPES, SMOLLM2, W1, Sizes, sizes_for

PARTS = ("main", "growth", "vllm")
ENVIRONMENT = ("QUICK", "SHAPES", "PARTS", "AXES", "OUT")


class Session:
    """Results so far: saved after each part, so that a run that is cut off keeps what it had."""

    def __init__(self, out: Path, quick: bool, machine: dict[str, str]):
        now = datetime.datetime.now(datetime.UTC)
        self.path = out / f"bench-{machine['device']}-{now:%Y%m%d-%H%M%S}.json"
        self.faults: list[str] = []
        self.result: dict[str, Any] = {
            "when": f"{now:%Y-%m-%d %H:%M} UTC",
            "machine": machine,
            "commit": describe_commit(),
            "command": _command(),
            "quick": quick,
            "work": dataclasses.asdict(W1),
            "shapes": {},
            "faults": self.faults,
        }
        out.mkdir(parents=True, exist_ok=True)

    def take(self, what: str, measure: Callable[[], Any]) -> dict[str, Any] | None:
        """One measurement as a dict. A failure is printed and counted, and the others go on."""
        print(f"  {what} ..", file=sys.stderr, flush=True)
        try:
            row = dataclasses.asdict(measure())
            if row.get("graphs"):
                self.faults.append(f"{what}: {row['graphs']} graphs were compiled while it was timed")
            return row
        except Exception as e:  # an hour of other figures must not be lost to it; the exit code tells
            traceback.print_exc()
            self.faults.append(f"{what}: {type(e).__name__}: {str(e)[:300]}")
            return None
        finally:
            self.save()

    def save(self) -> None:
        self.path.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")


def measure_main(model: LlamaForCausalLM, sizes: Sizes, session: Session, entry: dict[str, Any]) -> None:
    """The script, `generate`, the limit, and flexray, in turn."""
    quick = session.result["quick"]
    for key in ("checks", "script", "flexray"):
        entry[key] = []

    def add(key: str, what: str, measure: Callable[[], Any]) -> None:
        if (row := session.take(what, measure)) is not None:
            entry[key].append(row)

    for variant in VARIANTS:
        if variant != GPU_ONLY or model.device.type == "cuda":
            forget()
            add(
                "script",
                f"script: {variant}",
                lambda v=variant: measure_script(model, W1, sizes, v, quick=quick),
            )
    forget()
    entry["generate"] = session.take("generate", lambda: measure_generate(model, W1, sizes))
    forget()
    entry["limit"] = session.take("limit", lambda: measure_limit(model, W1, sizes))
    for method in METHODS:
        name = "/".join(method)
        forget()
        add("checks", f"check: {name}", lambda m=method: check(model, m, W1))
        works = [W1, MIXED] if sizes.mixed and method == METHODS[0] else [W1]
        for work in works:
            free_memory()
            add(
                "flexray",
                f"flexray: {name}, paraphrases of {work.segment} +- {work.spread} tokens",
                lambda m=method, w=work: measure_engine(model, m, w, sizes, samples=sizes.samples),
            )


def measure_axes(
    model: LlamaForCausalLM, sizes: Sizes, session: Session, entry: dict[str, Any], axes: list[str]
) -> None:
    """flexray, one axis after the other."""
    entry["growth"] = {axis: [] for axis in axes}
    for axis in axes:
        for value in sizes.axes[axis]:
            forget()
            row = session.take(
                f"growth: {axis} {value}", lambda a=axis, v=value: measure_growth(model, a, v, sizes)
            )
            if row is not None:
                entry["growth"][axis].append(row)


def run(
    quick: Annotated[bool, typer.Option(envvar="QUICK", help="Fewer and shorter; only for trying.")] = False,
    shapes: Annotated[
        str, typer.Option(envvar="SHAPES", help=f"Of {', '.join(SHAPES)}. GPU: 1b,3b,8b; CPU: smollm2.")
    ] = "",
    parts: Annotated[
        str, typer.Option(envvar="PARTS", help="Of main,growth,vllm: all; with QUICK: main.")
    ] = "",
    axes: Annotated[str, typer.Option(envvar="AXES", help="What grows: all, or some of them.")] = "",
    out: Annotated[Path, typer.Option(envvar="OUT", help="Folder for the JSON and the plots.")] = Path(
        "out/bench"
    ),
) -> None:
    """Measure flexray's engine on this machine's GPU, or else its CPUs."""
    machine = describe_machine()
    device = machine["device"]
    sizes = sizes_for(device, quick=quick)
    headline = "3b" if device == "cuda" else SMOLLM2
    default_shapes = ("3b" if quick else "1b,3b,8b") if device == "cuda" else SMOLLM2
    names = _chosen("shapes", shapes or default_shapes, tuple(SHAPES))
    chosen_parts = _chosen("parts", parts or ("main" if quick else ",".join(PARTS)), PARTS)
    if "vllm" in chosen_parts and not (device == "cuda" and is_installed()):
        print("part vllm: left out, as there is no GPU or no vLLM", file=sys.stderr)
        chosen_parts.remove("vllm")
    chosen_axes = _chosen("axes", axes or ",".join(sizes.axes), tuple(sizes.axes))

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message=".*flex_attention called without torch.compile.*")
    console = Console(width=None if sys.stdout.isatty() else 160)
    session = Session(out, quick, machine)
    console.print(tables.heading(session.result), highlight=False, soft_wrap=True)
    for name in names:
        print(f"{SHAPES[name].title}", file=sys.stderr, flush=True)
        entry = session.result["shapes"][name] = {"title": SHAPES[name].title}
        if "vllm" in chosen_parts:  # before there is a model here: vLLM wants the GPU's memory
            entry["vllm"] = session.take("vllm beside flexray", lambda n=name: measure_beside_vllm(n))
        if "main" in chosen_parts or "growth" in chosen_parts:
            model = make_model(name, device)
            entry |= {
                "dtype": str(model.dtype).removeprefix("torch."),
                "parameters": sum(p.numel() for p in model.parameters()),
            }
            if "main" in chosen_parts:
                measure_main(model, sizes, session, entry)
            if "growth" in chosen_parts:
                measure_axes(model, sizes, session, entry, chosen_axes)
                draw_growth(entry, session.path.with_name(f"{session.path.stem}-{name}.png"))
            del model
            forget()
        for table in tables.tables_of(entry, device):
            console.print(table.for_terminal())
    session.save()
    for fault in session.faults:
        console.print(f"FAILED {fault}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"written: {session.path}", highlight=False, soft_wrap=True)
    shown = headline if headline in names else names[0]
    print(tables.last_line(session.result["shapes"][shown]))
    if session.faults:
        raise typer.Exit(1)


def _chosen(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"{option}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
    return names


def _command() -> str:
    settings = [f"{name}={os.environ[name]}" for name in ENVIRONMENT[:-1] if os.environ.get(name)]
    return " ".join([*settings, "python -m benchmarks", *sys.argv[1:]])


if __name__ == "__main__":
    typer.run(run)
