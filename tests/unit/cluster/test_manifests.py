"""The manifests: of one image and version, and enough for what a night asks."""

import logging
import re

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount

import flexray
from flexray.config import load_config
from tests.conftest import PROJECT
from tests.unit.cluster.manifests import (
    CLUSTER,
    CLUSTERS,
    JOBS,
    OVERLAYS,
    amount,
    pods,
    rendered,
    resource,
    submitter,
    workers,
)

PODS = pytest.mark.parametrize("pod", [pytest.param(pod["spec"], id=name) for name, pod in pods()])
OF_CLUSTERS = pytest.mark.parametrize("name", CLUSTERS)
SCALED = [name for name, cluster in CLUSTERS.items() if cluster["enableInTreeAutoscaling"]]
WITH_WORKERS = [name for name, cluster in CLUSTERS.items() if workers(cluster)]
SECRETS = {"flexray-token", "flexray-storage-keys"}
RECIPE = str(CLUSTER / "recipes" / "questions.yaml")


def groups(cluster):
    return [cluster["headGroupSpec"], *workers(cluster)]


def container_of(group):
    (container,) = group["template"]["spec"]["containers"]
    return container


def pinned(package):
    (version,) = re.findall(rf"^{package}==(.*)$", (PROJECT / "constraints.txt").read_text(), re.M)
    return version


def test_each_overlay_is_of_its_kinds_and_the_parts_they_are_made_of_are_not_applied():
    kinds = {name: sorted(r["kind"] for r in rendered(f"overlays/{name}")) for name in OVERLAYS}
    assert kinds == {
        "check": ["Job"],
        "cluster": ["RayCluster"],
        "cpu": ["RayJob"],
        "job": ["RayJob"],
        "kueue": ["RayJob"],
        "nightly": ["CronJob", "RayCluster"],
        "raycronjob": ["RayCronJob"],
    }


def test_there_is_one_cluster_for_all_and_the_two_jobs_are_one():
    assert CLUSTERS["cluster"] == CLUSTERS["nightly"] == CLUSTERS["job"] == CLUSTERS["raycronjob"]
    assert JOBS["job"] == JOBS["raycronjob"]
    assert {group["groupName"] for group in workers(CLUSTERS["kueue"])} == {"gpu"}


def test_the_ray_version_and_the_image_are_those_of_the_project():
    assert {cluster["rayVersion"] for cluster in CLUSTERS.values()} == {pinned("ray")}
    images = {
        name.split()[0] == "cpu": {container["image"] for container in pod["spec"]["containers"]}
        for name, pod in pods()
    }
    assert images == {False: {f"registry.example.com/flexray:{flexray.__version__}"}, True: {"flexray:demo"}}


def autoscaling(cluster):
    found = {"metadata": {"name": "flexray", "namespace": "default"}, "spec": cluster}
    return _derive_autoscaling_config_from_ray_cr(found)


@pytest.mark.parametrize("name", SCALED)
def test_rays_autoscaler_reads_the_cluster(name, caplog):
    with caplog.at_level(logging.WARNING):
        config = autoscaling(CLUSTERS[name])
    assert not caplog.records
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    for group in ("on-demand", "spot"):
        assert (types[group]["resources"]["GPU"], types[group]["resources"]["CPU"]) == (1, 8)
        assert types[group]["resources"]["memory"] == 64 * 2**30


@pytest.mark.parametrize(
    ("engines", "started"),
    [(1, {"on-demand": 1}), (2, {"on-demand": 1, "spot": 1}), (4, {"on-demand": 1, "spot": 3})],
)
def test_no_gpu_is_there_before_one_is_asked_for_and_the_first_is_not_on_a_spot_node(engines, started):
    cluster = CLUSTERS["job"]
    assert [(group["minReplicas"], group["replicas"]) for group in workers(cluster)] == [(0, 0)] * 2
    config = AutoscalingConfig(autoscaling(cluster), skip_content_hash=True)
    asked = load_config(RECIPE).ray
    engine = ResourceRequestUtil.make({"CPU": asked.num_cpus_per_actor, "GPU": asked.num_gpus_per_actor})
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=[ResourceRequestByCount(request=engine, count=engines)],
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert {launch.instance_type: launch.count for launch in reply.to_launch} == started
    assert reply.infeasible_resource_requests == []


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_the_workers_are_enough_for_what_the_recipe_asks(name):
    asked = load_config(RECIPE).ray
    assert asked.num_gpus_per_actor is not None  # else a cluster without a worker yet would have none
    found = workers(CLUSTERS[name])
    assert sum(group["maxReplicas"] for group in found) >= asked.max_actors >= asked.min_actors
    for group in found:
        has = container_of(group)["resources"]["requests"]
        assert amount(has["nvidia.com/gpu"]) == int(group["rayStartParams"]["num-gpus"])
        assert amount(has["nvidia.com/gpu"]) >= asked.num_gpus_per_actor
        # beside the actor questions are read, rows written
        assert amount(has["cpu"]) >= asked.num_cpus_per_actor + 1


@pytest.mark.parametrize("name", SCALED)
def test_workers_come_on_demand_and_on_spot_nodes_and_the_head_never_on_those(name):
    head, on_demand, spot = (group["template"]["spec"] for group in groups(CLUSTERS[name]))
    (label,) = spot["nodeSelector"]
    assert spot["nodeSelector"] == {label: "spot"}
    assert any(toleration["key"] == label for toleration in spot["tolerations"])
    for pod in (head, on_demand):
        assert pod["nodeSelector"] == {label: "on-demand"}
        assert not any(toleration["key"] == label for toleration in pod.get("tolerations", ()))


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_workers_may_be_on_nodes_that_are_for_gpus(name):
    for group in workers(CLUSTERS[name]):
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        tolerations = group["template"]["spec"]["tolerations"]
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in tolerations


@pytest.mark.parametrize(("name", "pod"), [pytest.param(name, pod, id=name) for name, pod in pods()])
def test_no_node_is_emptied_while_it_works(name, pod):
    assert pod["metadata"]["annotations"] == {
        "karpenter.sh/do-not-disrupt": "true",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    }


@OF_CLUSTERS
def test_shared_memory_holds_the_object_store_and_is_part_of_the_containers_memory(name):
    for group in groups(CLUSTERS[name]):
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        shared = amount(volumes["shm"]["emptyDir"]["sizeLimit"])
        assert {"name": "shm", "mountPath": "/dev/shm"} in container_of(group)["volumeMounts"]
        assert int(group["rayStartParams"]["object-store-memory"]) < shared
        assert shared < amount(container_of(group)["resources"]["limits"]["memory"])


@PODS
def test_each_container_has_limits(pod):
    for container in pod["containers"]:
        requests, limits = (container["resources"][kind] for kind in ("requests", "limits"))
        assert requests.keys() == limits.keys() >= {"cpu", "memory"}
        assert requests["memory"] == limits["memory"]  # what is not asked for may be taken away
        assert all(amount(requests[name]) <= amount(limits[name]) for name in requests)


@PODS
def test_each_mount_has_its_volume_and_each_volume_its_mount(pod):
    mounted = {m["name"] for container in pod["containers"] for m in container.get("volumeMounts", ())}
    assert mounted == {volume["name"] for volume in pod.get("volumes", ())}


def test_claim_and_recipes_are_those_that_the_folder_has():
    volumes = [volume for _, pod in pods() for volume in pod["spec"].get("volumes", ())]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    (claim,) = [r["metadata"] for r in rendered("setup") if r["kind"] == "PersistentVolumeClaim"]
    (namespace,) = [r["metadata"] for r in rendered("setup") if r["kind"] == "Namespace"]
    assert (claims, claim["namespace"]) == ({claim["name"]}, namespace["name"])
    assert {v["configMap"]["name"] for v in volumes if "configMap" in v} == {"flexray-recipes"}
    readme = (CLUSTER / "README.md").read_text()
    assert "create configmap flexray-recipes --from-file=cluster/recipes" in readme


@OF_CLUSTERS
def test_the_recipe_is_whole_and_its_paths_are_on_the_volume_that_every_node_has(name):
    if name == "cpu":
        pytest.skip("it answers the demo's questions, which are in its image")
    config = load_config(RECIPE)
    for group in groups(CLUSTERS[name]):
        (mount,) = [m["mountPath"] for m in container_of(group)["volumeMounts"] if m["name"] == "storage"]
        assert all(p.startswith(f"{mount}/") for p in (config.output, config.model.path, *config.data.files))


def test_the_submitter_of_the_cron_job_has_the_clusters_token():
    auth = CLUSTERS["nightly"]["authOptions"]
    (container,) = submitter("nightly")["spec"]["containers"]
    env = {variable["name"]: variable for variable in container["env"]}
    assert env["RAY_AUTH_MODE"]["value"] == auth["mode"] == "token"
    reference = env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": auth["secretName"], "key": "auth_token"}  # KubeRay's name for the key
    readme = (CLUSTER / "README.md").read_text()
    assert f"create secret generic {auth['secretName']} --from-literal=auth_token=" in readme


def test_the_try_out_needs_nothing_beside_it():
    cluster = CLUSTERS["cpu"]
    assert "secretName" not in cluster["authOptions"]  # KubeRay makes a token
    (head,) = groups(cluster)
    kinds = {kind for volume in head["template"]["spec"]["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds == {"emptyDir"}
    assert all(source["secretRef"]["optional"] for source in container_of(head)["envFrom"])
    assert "nodeSelector" not in head["template"]["spec"]
    assert int(head["rayStartParams"]["num-cpus"]) == amount(
        container_of(head)["resources"]["requests"]["cpu"]
    )
    assert not re.search("nvidia.com|nodeSelector", str(rendered("overlays/cpu")))


def test_kueue_is_told_all_that_the_job_needs():
    job = resource("kueue", "RayJob")
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "flexray"}
    assert job["spec"]["suspend"]  # until Kueue has admitted it
    assert job["spec"]["shutdownAfterJobFinishes"]
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False
    for group in workers(cluster):
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
        assert "nodeSelector" not in group["template"]["spec"]  # Kueue's flavours say it
