"""The Pod Security Standard `restricted`.

It is defined at https://kubernetes.io/docs/concepts/security/pod-security-standards/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}
PROFILES = {"RuntimeDefault", "Localhost"}


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What an API server that enforces `restricted` would refuse about a pod's spec."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", ()):
        yield from (f"volume {kind}" for kind in volume.keys() - {"name"} - VOLUMES)
    of_pod = pod.get("securityContext", {})
    yield from _of_both(of_pod, "pod")
    if of_pod.get("sysctls"):
        yield "sysctls"
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        name, own = container["name"], container.get("securityContext", {})
        yield from _of_both(own, name)
        yield from _of_container(name, own)
        if any(port.get("hostPort") for port in container.get("ports", ())):
            yield f"{name}: hostPort"
        if not {**of_pod, **own}.get("runAsNonRoot"):
            yield f"{name}: runAsNonRoot"
        if {**of_pod, **own}.get("seccompProfile", {}).get("type") not in PROFILES:
            yield f"{name}: seccompProfile"


def _of_both(context: dict[str, Any], name: str) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield f"{name}: runAsUser"
    for field in ("seLinuxOptions", "appArmorProfile", "windowsOptions"):
        if context.get(field):
            yield f"{name}: {field}"


def _of_container(name: str, context: dict[str, Any]) -> Iterator[str]:
    if context.get("privileged"):
        yield f"{name}: privileged"
    if context.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities"
