"""Submit a job to a running Ray cluster, and follow it to its end.

More than `ray job submit`: the configuration is checked before the upload, and the exit code is the job's.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from aiohttp import ClientError
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from flexray.config import RunConfig
from flexray.config.recipe import read_recipe
from flexray.console.signals import Stopped
from flexray.errors import ConfigError, UserError
from flexray.models.hub import hub_model
from flexray.storage import redact

Script = Literal["generate", "nightly", "evaluate"]
"""Of jobs/."""

RAYS_OWN = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables whose address Ray's client prefers to the one that it is given."""
POLL_SECONDS = 2.0
LOST_SECONDS = 60.0  # without an answer of the dashboard, before it is given up

# OSError: no answer. RuntimeError: a refusal. RayError: a token. ValueError: an address, an environment.
_FAILURES = (OSError, RuntimeError, RayError, ValueError)


class SubmitError(UserError):
    """A job that the cluster refuses or cannot be asked about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A job in the form in which it is submitted."""

    id: str
    entrypoint: str
    """A shell command, run in the uploaded project."""
    runtime_env: dict[str, Any]


def make_submission(
    script: Script,
    paths: Sequence[str],
    configs: Sequence[RunConfig],
    *,
    overrides: Sequence[str] = (),
    project: Path,
    runtime_env: Path,
    submission_id: str | None = None,
) -> Submission:
    """The job that answers (generate, nightly) or scores (evaluate) these configurations.

    Args:
        paths: the files of one recipe (generate, evaluate), or recipes and folders of recipes (nightly).
        configs: the configuration in `paths`; for nightly one for each recipe.
        overrides: `a.b=value`, passed on to the job.
        project: the folder to upload: flexray's, with the recipes.
        runtime_env: a YAML file.
        submission_id: None: made from the data set and the day.

    Raises:
        ConfigError: the folder is not the project, a recipe is outside of it, a path in a recipe is
            relative, or the runtime environment is no YAML mapping.
    """
    file = f"jobs/{script}.py"
    if not (project / file).is_file():
        raise ConfigError(
            f"{project}: there is no {file} in this folder, which is what is uploaded. "
            "Start the command in the project's folder."
        )
    recipes = [_inside(path, project) for path in paths]
    for config in configs:
        _refuse_relative(config, output_only=script == "evaluate")
    options = [part for override in overrides for part in ("--set", override)]
    name = configs[0].data.name
    if script == "generate":
        arguments = [part for path in recipes for part in ("--config", path)] + options
    elif script == "nightly":
        arguments, name = recipes + options, "nightly"
    else:
        arguments, name = [config.output for config in configs], f"evaluate-{name}"
    return Submission(
        id=submission_id or f"flexray-{name}-{date.today().isoformat()}",
        entrypoint=shlex.join(["python", file, *arguments]),
        runtime_env=read_recipe([str(runtime_env)]) | {"working_dir": str(project)},
    )


def submit(
    submission: Submission, address: str, *, wait: bool = True, log: Callable[[str], None] = print
) -> int:
    """Submit a job and, with `wait`, follow its log to its end. Ray finds the cluster's token by itself.

    Returns:
        The exit code to end with: 0 if the job succeeded (without `wait`: was accepted), else the job's own,
        or 1 if it has none.

    Raises:
        SubmitError: no dashboard answers at the address, or it refuses the job.
    """
    client = _connect(address)
    try:
        client.submit_job(
            entrypoint=submission.entrypoint,
            submission_id=submission.id,
            runtime_env=submission.runtime_env,
        )
    except _FAILURES as e:
        raise _refusal(client, address, submission, e) from None
    log(f"{submission.id}: submitted: {redact(submission.entrypoint)}")
    if not wait:
        log(f"to follow it: ray job logs --address {redact(address)} --follow {submission.id}")
        return 0
    try:
        asyncio.run(_tail(client, submission.id, log))
    except Stopped as e:
        e.add_note(f"the job goes on; to end it: ray job stop --address {redact(address)} {submission.id}")
        raise
    except (*_FAILURES, ClientError) as e:
        log(f"{submission.id}: its log broke off ({e}); waits for its end")
    job = _await_end(client, address, submission.id)
    if job.status == JobStatus.SUCCEEDED:
        log(f"{submission.id}: {job.status}")
        return 0
    code = job.driver_exit_code
    why = f"exit code {code}" if code is not None else _last_line(job.message or "no reason given")
    log(f"{submission.id}: {job.status}: {why}")
    return code if code is not None and code > 0 else 1  # below 0: killed by a signal


def _connect(address: str) -> JobSubmissionClient:
    if not address.startswith(("http://", "https://")):
        raise SubmitError(f"--address {redact(address)}: give the dashboard's, such as http://HEAD:8265.")
    for variable in RAYS_OWN:
        if os.environ.get(variable, address) != address:
            raise SubmitError(
                f"{variable} is set to another address than --address {redact(address)}, and Ray would "
                "take it instead. Unset it."
            )
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise SubmitError(
            f"--address {redact(address)}: the cluster requires a token, but none or a wrong one is set "
            "here. Set RAY_AUTH_MODE=token, and put the token into RAY_AUTH_TOKEN or ~/.ray/auth_token."
        ) from None
    except _FAILURES as e:
        raise SubmitError(
            f"--address {redact(address)}: no Ray dashboard answers: {_last_line(str(e))} Give the one of "
            "the cluster's head, such as http://HEAD:8265."
        ) from None


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


def _inside(path: str, project: Path) -> str:
    """The path of a recipe, relative to the project."""
    if "://" in path:
        return path
    relative = os.path.relpath(path, project)  # links are not resolved: the uploaded copy has them too
    if relative.startswith(os.pardir):
        raise ConfigError(
            f"{path}: outside of {project}, which is what is uploaded. Put the recipe, and those it extends, "
            "into this folder, or give a URL that the cluster's head can read."
        )
    return relative


def _refuse_relative(config: RunConfig, *, output_only: bool) -> None:
    places = [("output", config.output)]
    if not output_only:
        places += [*_model_places(config), *_data_places(config)]
    wrong = [f"{key}: {path}" for key, path in places if "://" not in path and not os.path.isabs(path)]
    if wrong:
        raise ConfigError(
            f"relative paths: {', '.join(map(str, map(redact, wrong)))}. On the cluster they would be in the "
            "uploaded copy of this folder, which lasts as long as the job. Give absolute paths or URLs that "
            "every node sees."
        )


def _model_places(config: RunConfig) -> Iterator[tuple[str, str]]:
    """The folders of the model and of its adapters; none of a model that is a name on the hub, which the job
    looks for in the cluster's cache."""
    path = config.model.path
    if hub_model(path) is None or os.path.isdir(path.partition("/")[0]):  # a folder here, or meant as one
        yield "model.path", path
    yield from (("model.lora", folder) for folder in config.model.lora)


def _data_places(config: RunConfig) -> Iterator[tuple[str, str]]:
    sources = {"data": config.data, "prompt.few_shot_data": config.prompt.few_shot_data}
    for section, source in sources.items():
        if source is not None and source.hub is not None and os.path.isdir(source.hub.name):
            yield f"{section}.hub", source.hub.name
        for key in ("files", "template_files", "paraphrase_files"):
            yield from ((f"{section}.{key}", path) for path in getattr(source, key, ()))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return str(redact(lines[-1])) if lines else "no reason given."
