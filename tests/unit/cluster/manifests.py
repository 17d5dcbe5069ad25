"""The manifests of cluster/kubernetes as Kustomize renders them, and their parts."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any

from tests.conftest import PROJECT
from tests.unit.cluster.kustomize import Resource, build

CLUSTER = PROJECT / "cluster"
KUBERNETES = CLUSTER / "kubernetes"
OVERLAYS = tuple(sorted(path.name for path in (KUBERNETES / "overlays").iterdir()))
FOLDERS = ("setup", "base", *(f"overlays/{name}" for name in OVERLAYS))
UNITS = {"": 1, "m": Decimal("0.001"), "Mi": 2**20, "Gi": 2**30}


@cache
def rendered(folder: str) -> list[Resource]:
    """The resources of a folder of cluster/kubernetes. They are shared: not to be changed."""
    return build(KUBERNETES / folder)


def resource(overlay: str, kind: str) -> Resource:
    """The one resource of this kind of an overlay."""
    (found,) = [r for r in rendered(f"overlays/{overlay}") if r["kind"] == kind]
    return found


def job_spec(overlay: str) -> dict[str, Any] | None:
    """What a RayJob of this overlay does, or None."""
    for found in rendered(f"overlays/{overlay}"):
        if found["kind"] == "RayJob":
            return found["spec"]
        if found["kind"] == "RayCronJob":
            return found["spec"]["jobTemplate"]
    return None


def cluster_spec(overlay: str) -> dict[str, Any] | None:
    """The Ray cluster of this overlay, or None."""
    if job := job_spec(overlay):
        return job["rayClusterSpec"]
    kinds = {r["kind"]: r["spec"] for r in rendered(f"overlays/{overlay}")}
    return kinds.get("RayCluster")


CLUSTERS = {name: spec for name in OVERLAYS if (spec := cluster_spec(name))}
JOBS = {name: spec for name in OVERLAYS if (spec := job_spec(name))}


def workers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups of workers of a Ray cluster."""
    return cluster.get("workerGroupSpecs", [])


def submitter(overlay: str) -> dict[str, Any]:
    """The template of the pod that submits a job, or checks recipes."""
    if job := job_spec(overlay):
        return job["submitterPodTemplate"]
    if overlay == "check":
        return resource("check", "Job")["spec"]["template"]
    return resource(overlay, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The template of every pod that is started, and whose it is.

    The container of Ray's autoscaler, which KubeRay puts beside the head, is among the head's."""
    for name, cluster in CLUSTERS.items():
        head = cluster["headGroupSpec"]["template"]
        if cluster["enableInTreeAutoscaling"]:
            options = cluster["autoscalerOptions"]
            scaler = {key: options[key] for key in ("resources", "securityContext") if key in options}
            image = head["spec"]["containers"][0]["image"]
            beside = {"name": "autoscaler", "image": image, **scaler}
            head = head | {"spec": head["spec"] | {"containers": [*head["spec"]["containers"], beside]}}
        yield f"{name} head", head
        for group in workers(cluster):
            yield f"{name} {group['groupName']}", group["template"]
    for name in OVERLAYS:
        if name != "cluster":
            yield f"{name} submitter", submitter(name)


def amount(quantity: str) -> Decimal:
    """A quantity of Kubernetes, such as 500m, 8 or 64Gi, as a number."""
    number = quantity.rstrip("GiMm")
    return Decimal(number) * UNITS[quantity[len(number) :]]
