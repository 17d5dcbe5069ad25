"""Submit a job to a running Ray cluster, and follow it to its end.

More than `ray job submit`: flexray and the recipe are brought along, all is checked before the upload, and
the exit code is the job's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from aiohttp import ClientError
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from flexray.console.signals import Stopped
from flexray.errors import ConfigError, UserError
from flexray.pipeline.ray_connection import reach
from flexray.runs.submission import Submission
from flexray.storage import redact

VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Name a cluster for Ray's own client, the first one before the other."""
POLL_SECONDS = 2.0
ASK_SECONDS = 10.0
LATE_SECONDS = 5.0  # until a job is there whose submission was broken off
LOST_SECONDS = 60.0  # without an answer of the dashboard, before it is given up

# OSError: no answer. RuntimeError: a refusal. RayError: a token. ValueError: an address, an environment.
_FAILURES = (OSError, RuntimeError, RayError, ValueError)


class SubmitError(UserError):
    """A job that the cluster refuses or cannot be asked about."""


def submit(
    submission: Submission,
    address: str | None,
    *,
    wait: bool = True,
    stop_job: bool = False,
    log: Callable[[str], None] = print,
) -> int:
    """Submit a job and, with `wait`, follow its log to its end. Ray finds the cluster's token by itself.

    Args:
        address: of the dashboard, or one that `ray.init` takes. None: that of RAY_API_SERVER_ADDRESS or
            RAY_ADDRESS.
        stop_job: a signal that ends this process stops the job, too.

    Returns:
        The exit code to end with: 0 if the job succeeded (without `wait`: was accepted), else the job's own,
        or 1 if it has none.

    Raises:
        SubmitError: no dashboard answers at the address, or it refuses the job.
    """
    client = _connect(address)
    address = client.get_address()
    accepted = False
    try:
        _send(client, address, submission)
        accepted = True
        log(f"{submission.id}: submitted: {redact(submission.entrypoint)}")
        if not wait:
            log(f"to follow it: ray job logs --address {redact(address)} --follow {submission.id}")
            return 0
        job = _follow(client, address, submission.id, log)
    except Stopped as e:
        if stop_job:
            _stop(client, address, submission.id, e, accepted=accepted)
        else:
            e.add_note(_goes_on(address, submission.id, accepted=accepted))
        raise
    if job.status == JobStatus.SUCCEEDED:
        log(f"{submission.id}: {job.status}")
        return 0
    code = job.driver_exit_code
    why = f"exit code {code}" if code is not None else _last_line(job.message or "no reason given")
    log(f"{submission.id}: {job.status}: {why}")
    return code if code is not None and code > 0 else 1  # below 0: killed by a signal


def _connect(address: str | None) -> JobSubmissionClient:
    named, source = _named(address)
    said = f"{source} {redact(named)}"
    try:
        if "://" not in named and _speaks_http(named):  # Ray would ask it as a cluster, for 40 seconds
            named = f"http://{named}"
        if not named.startswith(("http://", "https://")):
            reach(named, source)
        with _variable(VARIABLES[0], named):
            return JobSubmissionClient(named)
    except AuthenticationError:
        raise SubmitError(
            f"{said}: the cluster requires a token, but none or a wrong one is set here. Set "
            "RAY_AUTH_MODE=token, and put the token into RAY_AUTH_TOKEN or ~/.ray/auth_token."
        ) from None
    except ConfigError as e:
        raise SubmitError(str(e)) from None
    except _FAILURES as e:
        raise SubmitError(
            f"{said}: no Ray dashboard answers: {_last_line(str(e))} Give the one of the cluster's head, "
            "such as http://HEAD:8265."
        ) from None


def _named(address: str | None) -> tuple[str, str]:
    """The address of the cluster, and who named it. Raises SubmitError if nobody does, or two differ."""
    for variable in VARIABLES:
        if not (other := os.environ.get(variable)):
            continue
        if address is not None and other.rstrip("/") != address.rstrip("/"):
            raise SubmitError(
                f"{variable} is set to another address than --address {redact(address)}, and Ray's commands "
                "would take it instead. Unset it, or leave --address out."
            )
        return other, variable
    if address is None:
        raise SubmitError(
            "no cluster is named. Give the dashboard of its head, --address http://HEAD:8265, or set "
            f"{VARIABLES[0]}."
        )
    return address, "--address"


def _speaks_http(address: str) -> bool:
    """Whether a web server listens at host:port, such as a dashboard."""
    try:
        with urlopen(f"http://{address}/api/version", timeout=ASK_SECONDS):
            return True
    except HTTPError:  # it wants a token
        return True
    except (OSError, ValueError, HTTPException):
        return False


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for as long as this lasts. Ray's client prefers it to its argument."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _send(client: JobSubmissionClient, address: str, submission: Submission) -> None:
    """Upload a job and have it started. A signal may come when the cluster has it, but has not said so."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "job.zip")
        try:
            submission.bundle.write(bundle)
            client.submit_job(
                entrypoint=submission.entrypoint,
                submission_id=submission.id,
                runtime_env=submission.runtime_env | {"working_dir": str(bundle)},
            )
        except _FAILURES as e:
            raise _refusal(client, address, submission, e) from None


def _refusal(
    client: JobSubmissionClient, address: str, submission: Submission, error: Exception
) -> SubmitError:
    try:
        seen = client.get_job_info(submission.id)
    except _FAILURES:
        return SubmitError(f"--address {redact(address)}: the job is refused: {_last_line(str(error))}")
    return SubmitError(
        f"{submission.id}: this cluster has had a job of this id, and Ray takes none twice; it is "
        f"{seen.status}. If there is more to do, submit it with another: --id {submission.id}-b"
    )


def _follow(client: JobSubmissionClient, address: str, job: str, log: Callable[[str], None]) -> JobDetails:
    """Log what a job logs, to its end."""
    try:
        asyncio.run(_tail(client, job, log))
    except (*_FAILURES, ClientError) as e:
        log(f"{job}: its log broke off ({e}); waits for its end")
    return _await_end(client, address, job)


def _stop(client: JobSubmissionClient, address: str, job: str, why: Stopped, *, accepted: bool) -> None:
    """Stop a job, note that, and wait until it has released its folder, or this process is ended. A job that
    the cluster has not said to have `accepted` may be about to start there."""
    give_up = time.monotonic() + (0 if accepted else LATE_SECONDS)
    while True:
        late = time.monotonic() >= give_up
        try:
            if client.stop_job(job) or late:  # False: nothing of it runs, not yet or no more
                break
        except _FAILURES as e:
            if late:
                goes_on = _goes_on(address, job, accepted=accepted)
                why.add_note(f"the job could not be stopped ({_last_line(str(e))}); {goes_on}")
                return
        time.sleep(0.5)
    why.add_note(f"the job {job} is stopped, too; submitted again, it goes on")
    with contextlib.suppress(SubmitError):
        _await_end(client, address, job)


def _goes_on(address: str, job: str, *, accepted: bool) -> str:
    goes_on = "the job goes on" if accepted else "the job goes on, if the cluster has taken it"
    return f"{goes_on}; to end it: ray job stop --address {redact(address)} {job}"


async def _tail(client: JobSubmissionClient, job: str, log: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        log(lines.rstrip("\n"))


def _await_end(client: JobSubmissionClient, address: str, job: str) -> JobDetails:
    """Poll until the job has ended; the dashboard may be unreachable for a while."""
    seen = time.monotonic()
    while True:
        try:
            details = client.get_job_info(job)
            seen = time.monotonic()
            if details.status.is_terminal():
                return details
        except _FAILURES as e:
            if time.monotonic() - seen > LOST_SECONDS:
                raise SubmitError(
                    f"--address {redact(address)}: has not answered for {LOST_SECONDS:.0f} s: "
                    f"{_last_line(str(e))} The job {job} may go on, or be lost with its cluster; submitted "
                    "again, with another --id, it goes on with what is not committed."
                ) from None
        time.sleep(POLL_SECONDS)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return str(redact(lines[-1])) if lines else "no reason given."
