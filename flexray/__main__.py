"""`python -m flexray` is `flexray`."""

from flexray.cli import main

main()
