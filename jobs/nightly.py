"""A night's work as a Ray job: `ray job submit --working-dir . -- python jobs/nightly.py RECIPE_OR_FOLDER ..`

Takes what `flexray nightly` takes: finds what is new or unfinished of some recipes, and does just that. What
is to be done follows from the inputs and from what is committed, so it may be started at any time, and twice;
`flexray/runs/nightly.py` says how.
"""

import sys

from flexray.cli import app

if __name__ == "__main__":
    sys.exit(app(["nightly", *sys.argv[1:]]))
