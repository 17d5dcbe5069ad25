"""The command line; a module for each group of commands.

Exit codes: 0 done; 1 the output is not in order, or above the run's limits, or a check of `doctor` fails;
2 something the user can put right, or a run that `plan` says would not start; 130 and 143 ended by Ctrl-C or
SIGTERM. `nightly` ends with the highest code of all its runs, `submit` with its job's.
What a command needs is imported when it runs, so that `--help` and an error in a configuration are quick.
"""

import sys

# each adds its commands
from flexray.cli import (  # noqa: F401
    answer_commands,
    cluster_commands,
    output_commands,
    preflight_commands,
    row_commands,
)
from flexray.cli.app import app


def main() -> None:
    """Entry point of `flexray`."""
    sys.exit(app())


__all__ = ["app", "main"]
