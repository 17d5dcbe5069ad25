"""`ray job submit --working-dir . -- python jobs/confidence.py --config FILE --to DATASET.jsonl`.

Takes what `flexray confidence` takes.
"""

import sys

from flexray.cli import app

if __name__ == "__main__":
    sys.exit(app(["confidence", *sys.argv[1:]]))
