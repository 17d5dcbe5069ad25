"""Stand-ins for Slurm's commands, so that `slurm.sh` runs on this machine: its nodes are all this one."""

from __future__ import annotations

from pathlib import Path

SRUN = """#!/usr/bin/env bash
echo "srun $*" >> "$TOLD"
while [[ $1 = --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >> "$TOLD"
[ "$1 $2" != "show hostnames" ] || tr , '\\n' <<< "$3"
"""


def slurm_job(folder: Path, nodes: str, **variables: str) -> dict[str, str]:
    """Write the stand-ins into a folder, and return the environment of a job on these nodes. `PATH` is their
    folder alone. A `srun` runs its command once, however many nodes it names."""
    programs = folder / "slurm"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o700)
    return {
        "PATH": str(programs),
        "TOLD": str(folder / "told"),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_CPUS_ON_NODE": "1",
        **variables,
    }
