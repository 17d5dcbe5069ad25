"""JSON schemas of the resources. They refuse a key that is misspelt or in the wrong place, as `kubectl` does.

Kubernetes's are in `kubernetes-1.29.json`, KubeRay's are made of the fields in `kuberay.yaml`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
KUBERAY = yaml.safe_load((HERE / "kuberay.yaml").read_text(encoding="utf-8"))
VERSIONS = tuple(KUBERAY)
"""Releases of KubeRay, the earliest first."""
PLAIN = {
    **{name: {"type": name} for name in ("string", "integer", "number", "boolean", "object")},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
}


@cache
def schema(kind: str, version: str) -> dict[str, Any]:
    """The schema of a resource of this kind, with KubeRay of this version."""
    whole = json.loads((HERE / "kubernetes-1.29.json").read_text(encoding="utf-8"))
    of_kubernetes = {name.rpartition(".")[2]: {"$ref": f"#/$defs/{name}"} for name in whole["$defs"]}
    fields: dict[str, dict[str, Any]] = {}
    for release in VERSIONS[: VERSIONS.index(version) + 1]:
        for name, more in KUBERAY[release].items():
            fields.setdefault(name, {}).update(more)

    def of(type_: Any) -> dict[str, Any]:
        if isinstance(type_, list):
            return {"type": "array", "items": of(type_[0])}
        if type_ in PLAIN:
            return PLAIN[type_]
        if "|" in type_:
            return {"enum": type_.split("|")}
        return of_kubernetes[type_[4:]] if type_.startswith("k8s:") else {"$ref": f"#/$defs/{type_}"}

    for name, of_name in fields.items():
        whole["$defs"][name] = {
            "type": "object",
            "properties": {key.rstrip("!"): of(type_) for key, type_ in of_name.items()},
            "required": [key[:-1] for key in of_name if key.endswith("!")],
            "additionalProperties": False,
        }
    return whole | ({"$ref": f"#/$defs/{kind}"} if kind in fields else of_kubernetes[kind])
