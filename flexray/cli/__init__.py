"""The command line; a module for each group of commands.

Exit codes: 0 done; 1 the output is not in order, or above the run's limits, or a check of `doctor` fails;
2 something the user can put right, or a run that `plan` says would not start; 130 and 143 ended by Ctrl-C or
SIGTERM. `nightly` ends with the highest code of all its runs, `submit` with its job's.
torch, Ray and what needs them are imported when a command runs, so that `--help` and errors are quick.
"""

import sys

# each adds its commands
from flexray.cli import answer_commands, output_commands, preflight_commands, submit_command  # noqa: F401
from flexray.cli.app import app


def main() -> None:
    """Entry point of `flexray`."""
    sys.exit(app())


__all__ = ["app", "main"]
