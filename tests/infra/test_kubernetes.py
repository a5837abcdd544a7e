"""The Kubernetes manifests checked with the schemas of Kubernetes and KubeRay and the rules of this project."""

import copy
import importlib.metadata
import re

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline.config_files import load_config
from tests.infra.documents import KUBERNETES, containers, label, manifests, pod_templates
from tests.infra.kuberay_schema import SCHEMAS

VERSION = "1.37"
ALL = manifests()
CORE = [document for document in ALL if not document["apiVersion"].startswith("ray.io/")]
RAY = [document for document in ALL if document["apiVersion"].startswith("ray.io/")]


def for_each(documents):
    return pytest.mark.parametrize("document", documents, ids=label)


@for_each(CORE)
def test_kubernetes_knows_every_field(document) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


@for_each(RAY)
def test_kuberay_knows_every_field(document) -> None:
    jsonschema.validate(document, SCHEMAS[document["kind"]])


@pytest.mark.parametrize(
    ("name", "template"), list(pod_templates()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_kubernetes_knows_every_field_of_a_pod_template(name: str, template) -> None:
    wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
    kubernetes_validate.validate(wrapped, VERSION, strict=True)
    wrong = copy.deepcopy(wrapped)
    wrong["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_an_unknown_field_of_kuberay_is_refused() -> None:
    wrong = copy.deepcopy(RAY[0])
    wrong["spec"]["autoscaling"] = True
    with pytest.raises(jsonschema.ValidationError, match="autoscaling"):
        jsonschema.validate(wrong, SCHEMAS[wrong["kind"]])


def test_everything_is_in_one_namespace_and_nothing_is_exposed() -> None:
    namespaced = [document for document in ALL if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in namespaced} == {"vqvae2"}
    services = [document["spec"] for document in ALL if document["kind"] == "Service"]
    assert all(service.get("type", "ClusterIP") == "ClusterIP" for service in services)
    assert not {"Ingress", "Secret"} & {document["kind"] for document in ALL}


@pytest.mark.parametrize(
    ("name", "container"), list(containers()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_container_is_pinned_bounded_and_unprivileged(name: str, container) -> None:
    assert re.search(r":\d+\.\d+", container["image"])
    assert {"cpu", "memory"} <= set(container["resources"]["requests"]) & set(container["resources"]["limits"])
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    if not name.startswith("ray-") or container["name"] == "pipeline":  # KubeRay gives Ray's containers their probes
        assert {"startupProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize(
    ("name", "template"), list(pod_templates()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_pod_runs_as_a_user_other_than_root(name: str, template) -> None:
    context = template["spec"]["securityContext"]
    assert context["runAsNonRoot"] and context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert template["spec"]["enableServiceLinks"] is False  # a service 'mlflow' would set MLFLOW_PORT=tcp://...


def test_secrets_are_only_referenced() -> None:
    for name, container in containers():
        for variable in container.get("env", []):
            if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY_ID", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], f"{name}: {variable['name']}"
    settings = [document["data"] for document in ALL if document["kind"] == "ConfigMap"]
    assert not [key for data in settings for key in data if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY_ID", key)]


def test_readme_names_every_secret_and_key() -> None:
    readme = (KUBERNETES.parent / "README.md").read_text()
    for _, container in containers():
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert re.search(rf"secret generic {reference['name']} .*{reference['key']}=", readme)


def test_kustomization_lists_every_file_but_the_job() -> None:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    on_disk = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert set(listed) == on_disk - {"kustomization.yaml", "ray_job.yaml"}


def test_services_refer_to_existing_ports() -> None:
    ports = {port["name"]: port["containerPort"] for _, each in containers() for port in each.get("ports", [])}
    for document in ALL:
        if document["kind"] == "Service":
            for port in document["spec"]["ports"]:
                assert ports[port["targetPort"]] == port["port"] or port["targetPort"] == "http"


def test_ray_has_the_version_that_is_installed_and_scales_cpu_and_gpu_workers() -> None:
    (spec,) = (document["spec"] for document in RAY if document["kind"] == "RayCluster")
    assert spec["rayVersion"] == importlib.metadata.version("ray")
    assert spec["enableInTreeAutoscaling"] and spec["authOptions"]["mode"] == "token"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert all(group["minReplicas"] < group["maxReplicas"] for group in groups.values())
    (worker,) = groups["gpu"]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_pipeline_accepts_the_config(tmp_path) -> None:
    (text,) = (each["data"]["config.yaml"] for each in ALL if "config.yaml" in each.get("data", {}))
    (tmp_path / "config.yaml").write_text(text)
    config = load_config(str(tmp_path / "config.yaml"))
    assert config.orchestration.schedule and config.artifact_root.startswith("s3://")
