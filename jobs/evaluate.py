"""The evaluation as a Ray job: `ray job submit --working-dir . -- python jobs/evaluate.py OUT [OUT2 ...]`.

Takes what `flexray evaluate` takes. It needs no Ray itself, only to be where the output can be read.
"""

import sys

from flexray.cli import app

if __name__ == "__main__":
    sys.exit(app(["evaluate", *sys.argv[1:]]))
