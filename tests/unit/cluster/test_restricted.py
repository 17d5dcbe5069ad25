"""All pods meet the Pod Security Standard `restricted`, and secrets come by reference only."""

import re

import pytest

from tests.unit.cluster.manifests import CLUSTER, pods, rendered
from tests.unit.cluster.pod_security import violations

PODS = pytest.mark.parametrize("pod", [pytest.param(pod["spec"], id=name) for name, pod in pods()])
SECRETS = {"flexray-token", "flexray-storage-keys"}
SAFE = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "c",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


@PODS
def test_each_pod_is_restricted_and_of_the_images_user(pod):
    assert list(violations(pod)) == []
    user = pod["securityContext"]["runAsUser"]
    assert f"--uid {user} " in (CLUSTER / "Dockerfile").read_text()


def test_the_namespace_takes_no_other_pod():
    (namespace,) = [r["metadata"] for r in rendered("setup") if r["kind"] == "Namespace"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize(
    ("of_pod", "of_container", "found"),
    [
        ({}, {}, []),
        ({"hostNetwork": True}, {}, ["hostNetwork"]),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, {}, ["volume hostPath"]),
        ({"securityContext": {}}, {}, ["c: runAsNonRoot", "c: seccompProfile"]),
        ({"initContainers": [{"name": "i"}]}, {}, ["i: allowPrivilegeEscalation", "i: capabilities"]),
        ({}, {"securityContext": {}}, ["c: allowPrivilegeEscalation", "c: capabilities"]),
        ({}, {"ports": [{"hostPort": 80}]}, ["c: hostPort"]),
    ],
)
def test_what_the_standard_forbids_is_found(of_pod, of_container, found):
    pod = SAFE | of_pod
    pod["containers"] = [SAFE["containers"][0] | of_container]
    assert list(violations(pod)) == found


@PODS
def test_secrets_come_by_reference_only(pod):
    for container in pod["containers"]:
        for variable in container.get("env", ()):
            if re.search("TOKEN|KEY|SECRET|PASSWORD", variable["name"]):
                assert variable.keys() == {"name", "valueFrom"}
                assert variable["valueFrom"]["secretKeyRef"]["name"] in SECRETS
        assert {source["secretRef"]["name"] for source in container.get("envFrom", ())} <= SECRETS


def test_only_the_head_may_ask_kubernetes_for_anything():
    for name, pod in pods():
        is_head = name.endswith("head")  # its autoscaler does
        assert pod["spec"].get("automountServiceAccountToken", True) is is_head, name
