"""The manifests as kubectl renders them are those that the other tests look at."""

import shutil
import subprocess

import pytest
import yaml

from tests.unit.cluster.kustomize import build
from tests.unit.cluster.manifests import FOLDERS, KUBERNETES

KUBECTL = shutil.which("kubectl")


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", [name for name in FOLDERS if name != "base"])  # it is in all
def test_kubectl_renders_the_same(folder):
    command = [str(KUBECTL), "kustomize", str(KUBERNETES / folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")

    def by_kind(resource):
        return resource["kind"]

    printed = sorted(yaml.safe_load_all(done.stdout), key=by_kind)
    assert printed == sorted(build(KUBERNETES / folder), key=by_kind)
