"""The command line; a module for each kind of command.

Exit codes: 0 done; 1 the output is not in order, or above the run's limits, or a check of `doctor` fails;
2 something the user can put right, or what `plan` looks at would not start; 130 and 143 ended by Ctrl-C or
SIGTERM. `nightly` ends with the highest code of all that it did, `submit` with its job's.
What a command needs is imported when it runs, so that `--help` and an error in a configuration are quick.
"""

import sys

# each adds its commands
from flexray.cli import cluster, generate, inspect, machine, output, plan, report, write  # noqa: F401
from flexray.cli.app import app


def main() -> None:
    """Entry point of `flexray`."""
    sys.exit(app())


__all__ = ["app", "main"]
