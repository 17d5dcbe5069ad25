"""What the manifests use of Kustomize, so that they are tested where there is no kubectl.

That is resources, images, a namespace, patches of JSON operations, replacements of whole fields, and
resources that are left out. Anything else is an error.

`test_kustomize.py` compares it with `kubectl kustomize`, where there is one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Resource = dict[str, Any]
LEFT_OUT = ("config.kubernetes.io/local-config", "true")


def build(folder: Path) -> list[Resource]:
    """The resources that `kubectl kustomize FOLDER` prints, in the order of the files."""
    config = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert config.pop("apiVersion") == "kustomize.config.k8s.io/v1beta1"
    assert config.pop("kind") == "Kustomization"
    found: list[Resource] = []
    for name in config.pop("resources"):
        path = folder / name
        found += build(path) if path.is_dir() else [yaml.safe_load(path.read_text(encoding="utf-8"))]
    # copied: YAML's anchors made one object of several
    found = [yaml.safe_load(yaml.dump(copy.deepcopy(r), Dumper=_NoAliases)) for r in found]
    for patch in config.pop("patches", ()):
        found = [_patched(r, patch, folder) for r in found]
    if namespace := config.pop("namespace", None):
        for resource in found:
            if resource["kind"] != "Namespace":
                resource["metadata"]["namespace"] = namespace
    for image in config.pop("images", ()):
        for container in (c for r in found for c in containers(r)):
            if re.fullmatch(rf"{re.escape(image['name'])}(:.*)?", container["image"]):
                container["image"] = f"{image['newName']}:{image['newTag']}"
    for replacement in config.pop("replacements", ()):
        _replace(found, replacement)
    assert not config, f"{folder}: {sorted(config)}: not known here"
    return [r for r in found if LEFT_OUT not in r["metadata"].get("annotations", {}).items()]


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def containers(part: Any) -> Iterator[dict[str, Any]]:
    """Every container below a key `containers` or `initContainers`, wherever that is."""
    if isinstance(part, list):
        for item in part:
            yield from containers(item)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in ("containers", "initContainers"):
                yield from value
            else:
                yield from containers(value)


def _selects(target: dict[str, str]) -> Callable[[Resource], bool]:
    assert target.keys() <= {"kind"}
    return lambda resource: re.fullmatch(target["kind"], resource["kind"]) is not None


def _patched(resource: Resource, patch: dict[str, Any], folder: Path) -> Resource:
    if not _selects(patch["target"])(resource):
        return resource
    text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text(encoding="utf-8")
    return jsonpatch.apply_patch(resource, yaml.safe_load(text))


def _replace(found: list[Resource], replacement: dict[str, Any]) -> None:
    source = dict(replacement["source"])
    path = source.pop("fieldPath").split(".")
    (value,) = [_at(r, path) for r in found if _selects(source)(r)]
    for target in replacement["targets"]:
        assert target.keys() == {"select", "fieldPaths"}
        (resource,) = filter(_selects(target["select"]), found)
        for field in target["fieldPaths"]:
            *parents, key = field.split(".")
            holder = _at(resource, parents)
            assert key in holder, f"{field}: Kustomize makes no field"
            holder[key] = copy.deepcopy(value)


def _at(part: Any, path: list[str]) -> Any:
    for key in path:
        part = part[int(key)] if isinstance(part, list) else part[key]
    return part
