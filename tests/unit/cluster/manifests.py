"""The manifests of cluster/, read; and what of KubeRay's and Kubernetes' kinds they may use.

The models hold the keys of KubeRay 1.7's custom resources that are of use here, and of no others: a key
that is misspelt, or in the wrong place, is refused as the API server would. Pods are checked by their parts.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from tests.conftest import PROJECT

CLUSTER = PROJECT / "cluster"
UNITS = {"": 1, "m": Decimal("0.001"), "Mi": 2**20, "Gi": 2**30}


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Metadata(Part):
    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9-]*$")
    generateName: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9-]*-$")  # noqa: N815


class PodTemplate(Part):
    spec: dict[str, Any]


class AutoscalerOptions(Part):
    version: Literal["v1", "v2"]
    upscalingMode: Literal["Default", "Aggressive", "Conservative"]  # noqa: N815
    idleTimeoutSeconds: int  # noqa: N815
    resources: dict[Literal["requests", "limits"], dict[str, str]]


class AuthOptions(Part):
    mode: Literal["token"]
    secretName: str  # noqa: N815


class Group(Part):
    rayStartParams: dict[str, str]  # noqa: N815
    template: PodTemplate

    @property
    def pod(self) -> dict[str, Any]:
        return self.template.spec

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.pod["containers"]
        return container


class WorkerGroup(Group):
    groupName: str  # noqa: N815
    minReplicas: int  # noqa: N815
    replicas: int
    maxReplicas: int  # noqa: N815


class RayClusterSpec(Part):
    rayVersion: str  # noqa: N815
    authOptions: AuthOptions  # noqa: N815
    enableInTreeAutoscaling: Literal[True]  # noqa: N815
    autoscalerOptions: AutoscalerOptions  # noqa: N815
    headGroupSpec: Group  # noqa: N815
    workerGroupSpecs: list[WorkerGroup]  # noqa: N815


class RayJobSpec(Part):
    entrypoint: str
    shutdownAfterJobFinishes: Literal[True]  # noqa: N815
    ttlSecondsAfterFinished: int  # noqa: N815
    activeDeadlineSeconds: int  # noqa: N815
    backoffLimit: int  # noqa: N815
    rayClusterSpec: RayClusterSpec  # noqa: N815


class RayCronJobSpec(Part):
    schedule: str
    timeZone: str  # noqa: N815
    jobTemplate: RayJobSpec  # noqa: N815


class Resource(Part):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    metadata: Metadata


class RayCluster(Resource):
    kind: Literal["RayCluster"]
    spec: RayClusterSpec


class RayJob(Resource):
    kind: Literal["RayJob"]
    spec: RayJobSpec


class RayCronJob(Resource):
    kind: Literal["RayCronJob"]
    spec: RayCronJobSpec


def load(name: str) -> Any:
    """A manifest, plain."""
    return yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))


def clusters() -> dict[str, RayClusterSpec]:
    """Each cluster that the manifests describe, by file."""
    return {
        "raycluster.yaml": RayCluster.model_validate(load("raycluster.yaml")).spec,
        "rayjob.yaml": RayJob.model_validate(load("rayjob.yaml")).spec.rayClusterSpec,
        "raycronjob.yaml": RayCronJob.model_validate(load("raycronjob.yaml")).spec.jobTemplate.rayClusterSpec,
    }


def submitter() -> dict[str, Any]:
    """The pod of the CronJob."""
    return load("cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Every pod, and whose it is."""
    found = [("cronjob.yaml", submitter())]
    for name, cluster in clusters().items():
        groups = {"head": cluster.headGroupSpec, **{g.groupName: g for g in cluster.workerGroupSpecs}}
        found += [(f"{name} {group}", spec.pod) for group, spec in groups.items()]
    return found


def amount(quantity: str) -> Decimal:
    """A quantity of Kubernetes, such as 500m, 8 or 64Gi, as a number."""
    number = quantity.rstrip("GiMm")
    return Decimal(number) * UNITS[quantity[len(number) :]]
