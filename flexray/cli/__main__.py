"""`python -m flexray.cli` is `flexray`."""

from flexray.cli import main

main()
