"""The manifests: of the kinds that they name, of one image and version, and enough for what a night asks."""

import logging
import re
import tomllib

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

import flexray
from flexray.config import load_config
from tests.conftest import PROJECT
from tests.unit.cluster.manifests import CLUSTER, amount, clusters, load, pods, submitter

PODS = pytest.mark.parametrize("pod", [pytest.param(pod, id=name) for name, pod in pods()])
SECRETS = {"flexray-token", "flexray-storage-keys"}
RECIPE = str(CLUSTER / "recipes" / "questions.yaml")


@pytest.fixture(params=sorted(clusters()))
def cluster(request):
    return clusters()[request.param]


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(.*)$", (PROJECT / "constraints.txt").read_text(), re.M)
    return version


def test_each_manifest_is_one_document_of_a_known_kind():
    kinds = {path.name: load(path.name).get("kind") for path in CLUSTER.glob("*.yaml")}
    assert kinds == {
        "cronjob.yaml": "CronJob",
        "operator-values.yaml": None,
        "raycluster.yaml": "RayCluster",
        "raycronjob.yaml": "RayCronJob",
        "rayjob.yaml": "RayJob",
        "storage.yaml": "PersistentVolumeClaim",
    }
    assert len(clusters()) == 3  # they are of their models


def test_the_ray_version_and_the_image_are_those_of_the_project(cluster):
    assert cluster.rayVersion == pinned("ray")
    images = {container["image"] for _, pod in pods() for container in pod["containers"]}
    assert images == {f"registry.example.com/flexray:{flexray.__version__}"}


def test_the_clusters_of_the_jobs_are_the_long_lived_one_with_a_worker_from_the_start():
    wanted = clusters()["raycluster.yaml"]
    assert wanted.workerGroupSpecs[0].groupName == "on-demand"
    wanted.workerGroupSpecs[0].minReplicas = wanted.workerGroupSpecs[0].replicas = 1
    assert clusters()["rayjob.yaml"] == clusters()["raycronjob.yaml"] == wanted
    job, nightly = load("rayjob.yaml")["spec"], load("raycronjob.yaml")["spec"]["jobTemplate"]
    assert job == nightly


def test_rays_autoscaler_reads_the_cluster(cluster, caplog):
    resource = {
        "metadata": {"name": "flexray", "namespace": "default"},
        "spec": cluster.model_dump(exclude_unset=True),
    }
    with caplog.at_level(logging.WARNING):
        config = _derive_autoscaling_config_from_ray_cr(resource)
    assert not caplog.records
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    for name in ("on-demand", "spot"):
        assert (types[name]["resources"]["GPU"], types[name]["resources"]["CPU"]) == (1, 8)
        assert types[name]["resources"]["memory"] == 64 * 2**30


def test_the_workers_are_enough_for_what_the_recipe_asks(cluster):
    asked = load_config(RECIPE).ray
    assert asked.num_gpus_per_actor is not None  # else a cluster without a worker yet would have none
    workers = cluster.workerGroupSpecs
    assert sum(group.maxReplicas for group in workers) >= asked.max_actors >= asked.min_actors
    for group in workers:
        has = group.container["resources"]["requests"]
        assert (
            amount(has["nvidia.com/gpu"]) == int(group.rayStartParams["num-gpus"]) >= asked.num_gpus_per_actor
        )
        assert (
            amount(has["cpu"]) >= asked.num_cpus_per_actor + 1
        )  # beside the actor questions are read, rows written


def test_workers_come_on_demand_and_on_spot_nodes_and_the_head_never_on_those(cluster):
    on_demand, spot = cluster.workerGroupSpecs
    (label,) = spot.pod["nodeSelector"]
    assert {label: "spot"} == spot.pod["nodeSelector"]
    assert any(toleration["key"] == label for toleration in spot.pod["tolerations"])
    for group in (cluster.headGroupSpec, on_demand):
        assert group.pod["nodeSelector"] == {label: "on-demand"}
        assert not any(toleration["key"] == label for toleration in group.pod.get("tolerations", ()))
    for group in (on_demand, spot):
        assert group.minReplicas <= group.replicas <= group.maxReplicas
        assert any(toleration["key"] == "nvidia.com/gpu" for toleration in group.pod["tolerations"])


def test_shared_memory_holds_the_object_store_and_is_part_of_the_containers_memory(cluster):
    for group in (cluster.headGroupSpec, *cluster.workerGroupSpecs):
        (volume,) = [volume for volume in group.pod["volumes"] if volume["name"] == "shm"]
        shared = amount(volume["emptyDir"]["sizeLimit"])
        assert volume["emptyDir"]["medium"] == "Memory"
        assert {"name": "shm", "mountPath": "/dev/shm"} in group.container["volumeMounts"]
        assert int(group.rayStartParams.get("object-store-memory", 0)) < shared
        assert shared < amount(group.container["resources"]["limits"]["memory"])


@PODS
def test_each_pod_runs_as_nobody_special_with_limits(pod):
    assert pod["securityContext"]["runAsNonRoot"]
    user = pod["securityContext"]["runAsUser"]
    assert f"--uid {user} " in (CLUSTER / "Dockerfile").read_text()
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        requests, limits = (container["resources"][kind] for kind in ("requests", "limits"))
        assert requests.keys() == limits.keys() >= {"cpu", "memory"}
        assert requests["memory"] == limits["memory"]  # what is not asked for may be taken away
        assert all(amount(requests[name]) <= amount(limits[name]) for name in requests)


@PODS
def test_each_mount_has_its_volume_and_each_volume_its_mount(pod):
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_claim_and_recipes_are_those_that_the_folder_has():
    volumes = [volume for _, pod in pods() for volume in pod["volumes"]]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    assert claims == {load("storage.yaml")["metadata"]["name"]}
    maps = {v["configMap"]["name"] for v in volumes if "configMap" in v}
    assert maps == {"flexray-recipes"}
    assert (
        "create configmap flexray-recipes --from-file=cluster/recipes" in (CLUSTER / "README.md").read_text()
    )


@PODS
def test_secrets_come_by_reference_only(pod):
    for container in pod["containers"]:
        for variable in container.get("env", ()):
            if re.search("TOKEN|KEY|SECRET|PASSWORD", variable["name"]):
                assert variable.keys() == {"name", "valueFrom"}
                assert variable["valueFrom"]["secretKeyRef"]["name"] in SECRETS
        assert {source["secretRef"]["name"] for source in container.get("envFrom", ())} <= SECRETS


def test_the_submitter_has_the_clusters_token(cluster):
    (container,) = submitter()["containers"]
    env = {variable["name"]: variable for variable in container["env"]}
    assert env["RAY_AUTH_MODE"]["value"] == cluster.authOptions.mode == "token"
    reference = env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference == {
        "name": cluster.authOptions.secretName,
        "key": "auth_token",
    }  # KubeRay's name for the key
    readme = (CLUSTER / "README.md").read_text()
    assert f"create secret generic {cluster.authOptions.secretName} --from-literal=auth_token=" in readme


def test_the_recipe_is_whole_and_its_paths_are_on_the_volume_that_every_node_has(cluster):
    config = load_config(RECIPE)
    for group in (cluster.headGroupSpec, *cluster.workerGroupSpecs):
        (mount,) = [m["mountPath"] for m in group.container["volumeMounts"] if m["name"] == "storage"]
        assert all(p.startswith(f"{mount}/") for p in (config.output, config.model.path, *config.data.files))


def test_the_operators_values_switch_the_one_gate_on_that_is_needed():
    assert load("operator-values.yaml") == {"featureGates": [{"name": "RayCronJob", "enabled": True}]}


def test_the_cron_job_is_never_two_and_tries_again_only_what_may_pass():
    spec = load("cronjob.yaml")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a failure policy needs it
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [2]
    assert rule["onExitCodes"]["containerName"] in {c["name"] for c in job["template"]["spec"]["containers"]}


def dockerfile() -> list[list[str]]:
    """Its instructions, in words."""
    text = re.sub(r"\\\n", " ", (CLUSTER / "Dockerfile").read_text())
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_is_of_the_projects_python_and_copies_what_there_is():
    instructions = dockerfile()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    version = project["requires-python"].removeprefix(">=")
    assert instructions[0] == ["FROM", f"python:{version}-slim"]
    copied = [source for words in instructions if words[0] == "COPY" for source in words[1:-1]]
    assert all((PROJECT / source).exists() for source in copied)
    assert {"flexray", "jobs", "cluster", project["readme"]} <= set(copied)
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignore if line.startswith("!")} == set(copied)
    assert ignore[1] == "*"


def test_the_image_has_the_pinned_versions_and_no_root():
    instructions = dockerfile()
    installs = [" ".join(words) for words in instructions if "pip" in words]
    assert len(installs) == 1
    assert installs[0].count("-c constraints.txt") == installs[0].count("pip install") == 2
    users = [words[1] for words in instructions if words[0] == "USER"]
    assert users == ["1000"]
    (folder,) = [words[1] for words in instructions if words[0] == "WORKDIR"]
    (container,) = submitter()["containers"]
    assert container["workingDir"] == folder
    assert all(f" {folder}/jobs/" in load(n)["spec"]["entrypoint"] for n in ("rayjob.yaml",))
