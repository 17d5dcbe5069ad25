"""Make N kills, a line for each trial; the exit code is 1 if harm was done."""

from __future__ import annotations

import argparse
import logging
import math
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
    # of the S3 server on loopback; an outage is over soon
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "FLEXRAY_STORAGE_PATIENCE": "5",
}
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("AWS_PROFILE", None)

from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem
from transformers.utils.logging import disable_progress_bar

from flexray.models.checkpoint import load_tokenizer
from tests.chaos.cluster import LossyCluster
from tests.chaos.kills import KINDS, KINDS_ON_S3, Kill, draw
from tests.chaos.trial import SHARDS, Outcome, Trial, answer_undisturbed
from tests.conftest import SMOLLM2
from tests.faulty_s3 import FaultyS3
from tests.tiny_model import cut_tokenizer, save_tiny_model

BUCKET = "chaos"
EVERY = 3
"""The first trial, and each third one after it, is a run into a bucket."""


def main() -> int:
    """Make the trials and sum up."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("kills", type=int, help="how many kills; each kind in turn")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--kind", action="append", choices=sorted({*KINDS, *KINDS_ON_S3}), help="only these")
    parser.add_argument("--together", type=int, default=4, help="kills in one trial, one after another")
    parser.add_argument(
        "--start-seconds", type=float, default=15, help="about what a start here takes until its first commit"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="no trial begins later, however few kills there were"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    disable_progress_bar()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    folder = Path(tempfile.mkdtemp(prefix="flexray-chaos-"))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    outcomes: list[Outcome] = []
    try:
        with FaultyS3(f"http://{host}:{port}") as s3:
            os.environ["AWS_ENDPOINT_URL"] = s3.url
            S3FileSystem().mkdir(BUCKET)
            make_trials(arguments, folder, s3, outcomes)
    finally:
        server.stop()
        if not any(outcome.failure for outcome in outcomes):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"what failed is kept in {folder}")
    done = [kill for outcome in outcomes for kill in outcome.kills]
    storage = sum(kill.is_storage for kill in done)
    lost, doubled, repeated = (sum(getattr(o, n) for o in outcomes) for n in ("lost", "doubled", "repeated"))
    counts = f"lost={lost} doubled={doubled} repeated={repeated}"
    print(f"kills={len(done) - storage} storage_faults={storage} {counts}", flush=True)
    return int(bool(lost or doubled or any(outcome.failure for outcome in outcomes)))


def make_trials(arguments: argparse.Namespace, folder: Path, s3: FaultyS3, outcomes: list[Outcome]) -> None:
    """Make trials until there were as many kills as are wanted; tell each, and add it to `outcomes`."""
    rnd, started = random.Random(arguments.seed), time.monotonic()
    wanted = set(arguments.kind or (*KINDS, *KINDS_ON_S3))
    local, on_s3 = ([kind for kind in kinds if kind in wanted] for kinds in (KINDS, KINDS_ON_S3))
    queues: dict[bool, list[str]] = {False: [], True: []}
    model = save_tiny_model(folder / "model", cut_tokenizer(load_tokenizer(SMOLLM2)))
    expected = answer_undisturbed(model, folder / "undisturbed")
    with LossyCluster() as cluster:
        while (missing := arguments.kills - sum(len(o.kills) for o in outcomes)) > 0:
            late = time.monotonic() - started > 60 * arguments.minutes
            if late or len(outcomes) >= 2 * arguments.kills + 2:
                break
            number = len(outcomes)
            in_bucket = bool(on_s3) and (not local or not number % EVERY)
            kinds, queue = (on_s3 if in_bucket else local), queues[in_bucket]
            count = min(missing, arguments.together)
            while len(queue) < count:
                queue += rnd.sample(kinds, len(kinds))
            kills = [
                draw(queue.pop(0), rnd, shards=SHARDS, start_seconds=arguments.start_seconds)
                for _ in range(count)
            ]
            begin = time.monotonic()
            place = {"bucket": BUCKET, "s3": s3} if in_bucket else {}
            trial = Trial(cluster, model, folder / f"trial-{number}", rnd, **place)
            outcome = trial.run(kills, expected)
            outcomes.append(outcome)
            seconds = time.monotonic() - begin
            print(f"{len(outcomes):4} {describe(trial, kills, outcome)}  {seconds:.1f} s", flush=True)
            if not outcome.failure:
                shutil.rmtree(folder / f"trial-{number}")


def describe(trial: Trial, kills: list[Kill], outcome: Outcome) -> str:
    """A trial in one line."""
    told = ", ".join(f"{k.kind} {k.moment}{'' if k in outcome.kills else ' (missed)'}" for k in kills)
    grown = " -> ".join(f"{rows} x {methods}" for rows, methods in trial.growth)
    place = "a bucket" if trial.output.local_path is None else "a folder"
    counts = f"lost {outcome.lost} doubled {outcome.doubled} repeated {outcome.repeated}"
    failed = f"  FAILED: {outcome.failure}" if outcome.failure else ""
    return f"{place}, {grown}: {told}: {outcome.starts} starts, {counts}{failed}"


if __name__ == "__main__":
    sys.exit(main())
