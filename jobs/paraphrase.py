"""`ray job submit --working-dir . -- python jobs/paraphrase.py --config FILE --to DATASET.jsonl`.

Takes what `flexray paraphrase` takes.
"""

import sys

from flexray.cli import app

if __name__ == "__main__":
    sys.exit(app(["paraphrase", *sys.argv[1:]]))
