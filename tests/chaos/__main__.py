"""Make N kills, a line for each trial; the exit code is 1 if harm was done."""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

# Before Ray is imported, which reads them then: a cluster that only this process and its children open.
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ.pop("RAY_ADDRESS", None)

from transformers.utils.logging import disable_progress_bar

from flexray.models.checkpoint import load_tokenizer
from tests.chaos.cluster import LossyCluster
from tests.chaos.kills import KINDS, Kill, draw
from tests.chaos.trial import SHARDS, Outcome, Trial, answer_undisturbed
from tests.conftest import SMOLLM2
from tests.tiny_model import cut_tokenizer, save_tiny_model


def main() -> int:
    """Make the trials and sum up."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("kills", type=int, help="how many kills; each kind in turn")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these")
    parser.add_argument("--together", type=int, default=4, help="kills in one trial, one after another")
    parser.add_argument(
        "--start-seconds", type=float, default=15, help="about what a start here takes until its first commit"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    disable_progress_bar()
    rnd = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="flexray-chaos-"))
    outcomes: list[Outcome] = []
    try:
        model = save_tiny_model(folder / "model", cut_tokenizer(load_tokenizer(SMOLLM2)))
        expected = answer_undisturbed(model, folder / "undisturbed")
        with LossyCluster() as cluster:
            queue: list[str] = []
            while (missing := arguments.kills - sum(len(o.kills) for o in outcomes)) > 0:
                if len(outcomes) >= 2 * arguments.kills + 2:
                    break
                while len(queue) < min(missing, arguments.together):
                    kinds = list(arguments.kind or KINDS)
                    queue += rnd.sample(kinds, len(kinds))
                kills = [
                    draw(queue.pop(0), rnd, shards=SHARDS, start_seconds=arguments.start_seconds)
                    for _ in range(min(missing, arguments.together))
                ]
                begin = time.monotonic()
                trial = Trial(cluster, model, folder / f"trial-{len(outcomes)}", rnd)
                outcome = trial.run(kills, expected)
                outcomes.append(outcome)
                print(
                    f"{len(outcomes):4} {describe(kills, outcome)}  {time.monotonic() - begin:.1f} s",
                    flush=True,
                )
                if not outcome.failure:
                    shutil.rmtree(trial.output.parent)
    finally:
        if not any(outcome.failure for outcome in outcomes):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"what failed is kept in {folder}")
    kills_done = sum(len(o.kills) for o in outcomes)
    lost, doubled, repeated = (sum(getattr(o, n) for o in outcomes) for n in ("lost", "doubled", "repeated"))
    print(f"kills={kills_done} lost={lost} doubled={doubled} repeated={repeated}", flush=True)
    return int(bool(lost or doubled or any(outcome.failure for outcome in outcomes)))


def describe(kills: list[Kill], outcome: Outcome) -> str:
    """A trial in one line."""
    told = ", ".join(f"{k.kind} {k.moment}{'' if k in outcome.kills else ' (missed)'}" for k in kills)
    went = "the driver went on" if outcome.starts == 1 else f"resumed {outcome.starts - 1} time(s)"
    counts = f"lost {outcome.lost} doubled {outcome.doubled} repeated {outcome.repeated}"
    return f"{told}: {went}, {counts}{'  FAILED: ' + outcome.failure if outcome.failure else ''}"


if __name__ == "__main__":
    sys.exit(main())
