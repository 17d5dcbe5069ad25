"""The job as Ray runs it: `ray job submit --working-dir . -- python jobs/generate.py --config FILE`.

Takes what `flexray run` takes.
"""

import sys

from flexray.cli import app

if __name__ == "__main__":
    sys.exit(app(["run", *sys.argv[1:]]))
