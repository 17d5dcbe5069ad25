"""What is tried again and what is not: a typo rebuilds no cluster and asks for no GPU."""

import pytest

from tests.unit.cluster.manifests import CLUSTERS, JOBS, KUBERNETES, resource, submitter, workers

JOB = pytest.mark.parametrize("name", JOBS)


@JOB
def test_kuberay_makes_no_second_cluster_whatever_the_exit_code(name):
    assert JOBS[name]["backoffLimit"] == 0


@JOB
def test_the_submitter_that_is_lost_starts_again_and_leaves_the_submission_to_kuberay(name):
    # KubeRay's own command asks for the job first, and submits it only if the head does not know it
    assert JOBS[name]["submitterConfig"]["backoffLimit"] > 0
    (container,) = submitter(name)["spec"]["containers"]
    assert not {"command", "args"} & container.keys()
    assert submitter(name)["spec"]["restartPolicy"] == "Never"


def test_no_worker_is_there_before_the_driver_has_read_the_recipe():
    for name, cluster in CLUSTERS.items():
        if name != "kueue":  # which wants to know how many there will be
            assert all(group["minReplicas"] == group["replicas"] == 0 for group in workers(cluster))


def test_a_queue_is_for_recipes_that_were_checked():
    text = (KUBERNETES / "overlays" / "kueue" / "kustomization.yaml").read_text()
    assert "apply the overlay check first" in text
    assert resource("check", "Job")["spec"]["backoffLimit"] == 0


def test_every_job_has_an_end():
    deadlines = [job["activeDeadlineSeconds"] for job in JOBS.values()]
    deadlines.append(resource("check", "Job")["spec"]["activeDeadlineSeconds"])
    deadlines.append(resource("nightly", "CronJob")["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"])
    assert all(600 <= seconds < 24 * 3600 for seconds in deadlines)  # before the next night


def test_a_job_that_is_stopped_has_the_time_to_release_its_folder():
    from flexray.console.signals import GRACE_SECONDS

    for cluster in CLUSTERS.values():
        pod = cluster["headGroupSpec"]["template"]["spec"]
        env = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
        wait = int(env["RAY_JOB_STOP_WAIT_TIME_S"])
        assert GRACE_SECONDS < wait < pod["terminationGracePeriodSeconds"]
    assert submitter("nightly")["spec"]["terminationGracePeriodSeconds"] > GRACE_SECONDS


def test_the_cron_job_is_never_two_and_tries_again_only_what_may_pass():
    spec = resource("nightly", "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a failure policy needs it
    wrong, emptied = job["podFailurePolicy"]["rules"]
    assert (wrong["action"], wrong["onExitCodes"]["values"]) == ("FailJob", [2])
    assert wrong["onExitCodes"]["containerName"] in {c["name"] for c in job["template"]["spec"]["containers"]}
    assert (emptied["action"], emptied["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
