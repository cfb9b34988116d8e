"""The Kubernetes files: right by the API's schemas, and in the form of Prefect's Kubernetes worker.

No Kubernetes runs here.
"""

import copy
import json
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose import INFRA

FOLDER = INFRA / "kubernetes"
TEMPLATE = json.loads((FOLDER / "base-job-template.json").read_text(encoding="utf-8"))
API = "1.37"


def resources() -> list[dict[str, Any]]:
    texts = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yaml"))]
    return [found for text in texts for found in yaml.safe_load_all(text)]


@pytest.mark.parametrize("resource", resources(), ids=lambda one: one["kind"])
def test_a_resource_is_right_by_the_schema_of_its_kind(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, API, strict=True)


def test_what_resources_name_is_there() -> None:
    found = {(one["kind"], one["metadata"]["name"]) for one in resources()}
    default = {name: value.get("default") for name, value in properties().items()}
    assert ("ConfigMap", default["addresses"]) in found
    assert ("PersistentVolumeClaim", default["runs_claim"]) in found
    assert ("ServiceAccount", default["service_account_name"]) in found
    assert ("Namespace", default["namespace"]) in found
    (budget,) = [one for one in resources() if one["kind"] == "PodDisruptionBudget"]
    labels = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    # A Job has no scale, which a share or maxUnavailable would be counted by.
    assert set(budget["spec"]) == {"minAvailable", "selector"}


def test_no_secret_is_in_the_files() -> None:
    assert not any(one["kind"] == "Secret" for one in resources())
    (addresses,) = [one for one in resources() if one["kind"] == "ConfigMap"]
    assert not any(word in name for name in addresses["data"] for word in ("AUTH", "PASS", "KEY"))


def properties() -> dict[str, Any]:
    found: dict[str, Any] = TEMPLATE["variables"]["properties"]
    return found


async def job(**variables: Any) -> dict[str, Any]:
    """Return the Job that Prefect's worker makes of the template for a run."""
    from uuid import uuid4

    from prefect.client.schemas.objects import FlowRun
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    # Nothing is asked there; without an address a server would be started.
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        made = await KubernetesWorkerJobConfiguration.from_template_and_values(
            copy.deepcopy(TEMPLATE), variables
        )
        made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="rare-owl"))
    manifest: dict[str, Any] = made.job_manifest
    # Prefect's worker demands these two here, where the API ignores them.
    pod = manifest["spec"]["template"]["spec"]
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    return manifest


def test_a_job_of_the_template_is_right_by_the_schema() -> None:
    import asyncio

    manifest = asyncio.run(job(working_dir="/runs/work", env={"MORE": "yes"}))
    kubernetes_validate.validate(manifest, API, strict=True)
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["workingDir"] == "/runs/work"
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert pod["terminationGracePeriodSeconds"] == 150
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["securityContext"]["runAsNonRoot"] is True
    # What was not given is not there: an empty class or limit would be refused.
    assert "priorityClassName" not in pod
    assert "cpu" not in container["resources"]["limits"]
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "vlm-ops-run"
    # Where a pod is evicted, Prefect schedules the run again.
    behavior = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"
    assert {"name": behavior, "value": "reschedule"} in container["env"]


def test_a_job_without_a_gpu_and_on_other_nodes() -> None:
    import asyncio

    manifest = asyncio.run(job(gpus=0, node_selector={"kind": "cpu"}, tolerations=[]))
    kubernetes_validate.validate(manifest, API, strict=True)
    pod = manifest["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 0
    assert pod["nodeSelector"] == {"kind": "cpu"}


def test_the_template_has_all_that_prefects_own_has() -> None:
    from prefect_kubernetes.worker import KubernetesWorker

    own = KubernetesWorker.get_default_base_job_template()
    # A worker in Kubernetes needs no credentials for it, so one setting is not there.
    without = {"cluster_config"}  # former name
    assert set(own["job_configuration"]) - without == set(TEMPLATE["job_configuration"])
    assert set(own["variables"]["properties"]) - without <= set(properties())
