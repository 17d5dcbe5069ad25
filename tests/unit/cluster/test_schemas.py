"""Each resource fits the schemas of Kubernetes and of KubeRay 1.6 and 1.7, and KubeRay's other checks."""

import copy
import json
import re
import shutil
import subprocess

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.unit.cluster.manifests import FOLDERS, JOBS, rendered, resource
from tests.unit.cluster.schemas import VERSIONS, schema

KUBECONFORM = shutil.which("kubeconform")
RESOURCES = [
    pytest.param(found, id=f"{folder}-{found['kind']}") for folder in FOLDERS for found in rendered(folder)
]


def faults(found, version):
    errors = Draft202012Validator(schema(found["kind"], version)).iter_errors(found)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in errors]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("found", RESOURCES)
def test_each_resource_fits_its_schema(found, version):
    assert faults(found, version) == []


def test_what_is_misspelt_or_missing_or_of_another_type_does_not_fit():
    job = resource("job", "RayJob")
    for path, value in (
        ("spec.backofLimit", 0),
        ("spec.backoffLimit", "0"),
        ("spec.submissionMode", "K8sMode"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.nodeSelectors", {}),
        ("spec.submitterPodTemplate.spec.containers", None),
        ("spec.rayClusterSpec.headGroupSpec", None),
    ):
        changed = copy.deepcopy(job)
        *parents, key = path.split(".")
        holder = changed
        for parent in parents:
            holder = holder[parent]
        if value is None:
            del holder[key]
        else:
            holder[key] = value
        assert len(faults(changed, VERSIONS[-1])) == 1, path
    newer = copy.deepcopy(resource("raycronjob", "RayCronJob"))
    newer["spec"]["timeZone"] = "Etc/UTC"
    assert [bool(faults(newer, version)) for version in VERSIONS] == [True, False]


@pytest.mark.parametrize("overlay", JOBS)
def test_kuberay_refuses_none_of_the_jobs(overlay):
    """What its operator's `ValidateRayJobSpec` and `ValidateRayClusterSpec` look at, of what is used here."""
    (found,) = [r for r in rendered(f"overlays/{overlay}") if r["kind"] in ("RayJob", "RayCronJob")]
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", found["metadata"]["name"])
    assert len(found["metadata"]["name"]) <= 47
    job = JOBS[overlay]
    cluster = job["rayClusterSpec"]
    assert job["shutdownAfterJobFinishes"]  # so it may be suspended, and may have a time to live
    assert job["ttlSecondsAfterFinished"] >= 0
    assert job["backoffLimit"] >= 0
    assert min(job["activeDeadlineSeconds"], job["preRunningDeadlineSeconds"]) > 0
    assert [int(part) for part in cluster["rayVersion"].split(".")] >= [2, 52, 0]  # it has tokens
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ())):
        assert group["template"]["spec"]["containers"]
        assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"
        assert not {"resources", "labels"} & group.keys()  # they are in rayStartParams
    assert cluster["enableInTreeAutoscaling"] or "autoscalerOptions" not in cluster


@pytest.mark.skipif(KUBECONFORM is None, reason="kubeconform is not installed")
@pytest.mark.parametrize("version", VERSIONS)
def test_kubeconform_finds_no_fault(version, tmp_path):
    found = [r for folder in FOLDERS for r in rendered(folder)]
    for kind in {r["kind"] for r in found}:
        (tmp_path / f"{kind.lower()}.json").write_text(json.dumps(schema(kind, version)))
    location = f"{tmp_path}/{{{{.ResourceKind}}}}.json"
    command = [str(KUBECONFORM), "-strict", "-summary", "-schema-location", location]
    done = subprocess.run(
        command, input=yaml.safe_dump_all(found), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout
