"""Run the tests with other releases of torch, transformers and Ray: `make test-compat`.

Each combination gets a virtual environment of its own below .compat/, which is kept. What passed is written
to docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement

from benchmarks.machine import describe_commit

PROJECT = Path(__file__).resolve().parent.parent
TESTS = [
    "tests/unit/engine",
    "tests/unit/masks",
    "tests/unit/methods",
    "tests/unit/models",
    "tests/unit/pipeline",
    "tests/unit/prompts",
    "tests/unit/config/test_versions.py",
    "tests/ray/test_job.py",
    "tests/unit/test_bad_rows.py",
]
TIED = {
    "setuptools",
    "huggingface-hub",
    "tokenizers",
    "datasets",
    "accelerate",
    "hf-xet",
    "safetensors",
    "triton",
    "flexray",
}
"""Each release of transformers and torch wants others of these than constraints.txt names."""


@dataclass(frozen=True, slots=True)
class Combination:
    """Releases that are tried together."""

    name: str
    torch: str
    transformers: str
    ray: str


COMBINATIONS = (
    Combination("oldest", torch="2.13.0", transformers="4.55.2", ray="2.55.0"),
    Combination("middle", torch="2.13.0", transformers="4.57.6", ray="2.57.1"),
    Combination("first-5", torch="2.13.0", transformers="5.0.0", ray="2.58.1"),
    Combination("newest", torch="2.14.1", transformers="5.24.0", ray="2.60.0"),
)


def make_environment(combination: Combination) -> Path:
    """The interpreter of the combination's environment, which is made if it is not there."""
    folder = PROJECT / ".compat" / combination.name
    python = folder / "bin" / "python"
    chosen = {"torch": combination.torch, "transformers": combination.transformers, "ray": combination.ray}
    if (folder / "done").is_file() and (folder / "done").read_text() == repr(combination):
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(
        "".join(f"{line}\n" for line in _pins() if _name(line) not in TIED | chosen.keys())
        + "".join(f"{name}=={version}\n" for name, version in chosen.items())
    )
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "-c",
            constraints,
            f"torch=={combination.torch}",
            "-e",
            f"{PROJECT}[dev]",
        ],
        check=True,
    )
    (folder / "done").write_text(repr(combination))
    return python


def run_tests(combination: Combination, python: Path, options: list[str]) -> tuple[str, float]:
    """What came of the tests, in words, and their seconds."""
    report = PROJECT / ".compat" / f"{combination.name}.xml"
    command = [python, "-m", "pytest", "-q", "-n", "2", "--no-loadscope-reorder", f"--junitxml={report}"]
    begin = time.monotonic()
    subprocess.run(
        [*command, "-m", "not gpu and not slow", *(options or TESTS)],
        cwd=PROJECT,
        check=False,
    )
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    count = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    bad = count["failures"] + count["errors"]
    told = f"{count['tests'] - bad - count['skipped']} passed" + (f", {bad} failed" if bad else "")
    return told, time.monotonic() - begin


def write_table(rows: dict[str, str]) -> Path:
    """docs/compatibility.md; what was not run this time, or is of a GPU, keeps its line."""
    file = PROJECT / "docs" / "compatibility.md"
    old = dict(re.findall(r"^\| (\S+) \|(.*)$", file.read_text(), re.MULTILINE)) if file.is_file() else {}
    lines = [
        "# Compatibility\n",
        "`make test-compat` makes an environment for each line and runs the tests of engine, masks, methods,",
        "prompts and pipeline, and whole jobs on Ray, in it, on CPUs. torch 2.11 and 2.12 are for GPUs only:",
        "a FlexAttention that 2.11 compiled for a CPU may write past its buffers, and flexray refuses it",
        "there. The line of 2.11 is of `make test-gpu`.\n",
        "LoRA adapters are read as PEFT 0.21.2 reads them, which the tests compare them with; PEFT is needed",
        "for tests only. Some older PEFTs do not save the biases that `bias: lora_only` has trained: such an",
        "adapter is refused, as they are not there to be merged.\n",
        "| | torch | transformers | ray | tests |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {name} |{line}" for name, line in (old | rows).items()]
    file.write_text("\n".join(lines) + "\n")
    return file


def main() -> int:
    """Try the combinations; the exit code is 1 if a test failed with one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("--only", action="append", choices=[c.name for c in COMBINATIONS])
    parser.add_argument(
        "tests", nargs="*", help="for pytest, in place of those above; then no table is written"
    )
    arguments = parser.parse_args()
    rows: dict[str, str] = {}
    for combination in COMBINATIONS:
        if arguments.only and combination.name not in arguments.only:
            continue
        told, seconds = run_tests(combination, make_environment(combination), arguments.tests)
        versions = f" {combination.torch} | {combination.transformers} | {combination.ray} |"
        rows[combination.name] = f"{versions} {told}; commit {describe_commit()} |"
        print(f"{combination.name}: {versions} {told}, {seconds:.0f} s", flush=True)
    if not arguments.tests:
        print(write_table(rows))
    return int(any("failed" in row for row in rows.values()))


def _pins() -> list[str]:
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "==" in line and not line.startswith("#")]


def _name(pin: str) -> str:
    return Requirement(pin).name.lower().replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
