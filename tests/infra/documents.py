"""The files of infra/, parsed for the tests."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"

Document = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """The command line of one container."""

    where: str
    words: tuple[str, ...]


def manifests() -> list[Document]:
    """Every Kubernetes document, kustomization.yaml left out."""
    paths = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def label(document: Document) -> str:
    """Kind and name, for test ids."""
    names = document["metadata"]
    return f"{document['kind']}-{names.get('name') or names['generateName'] + 'x'}"


def pod_templates() -> Iterator[tuple[str, Document]]:
    """Each pod template of the manifests with a label: one per workload, and one per group of nodes of a RayCluster."""
    for document in manifests():
        if document["kind"] in ("Deployment", "StatefulSet"):
            yield label(document), document["spec"]["template"]
        if document["kind"] == "RayCluster":
            yield "ray-head", document["spec"]["headGroupSpec"]["template"]
            for group in document["spec"]["workerGroupSpecs"]:
                yield f"ray-{group['groupName']}", group["template"]


def containers() -> Iterator[tuple[str, Document]]:
    """Each container of the manifests with a label."""
    for name, template in pod_templates():
        for container in template["spec"]["containers"]:
            yield f"{name}/{container['name']}", container


def compose() -> Document:
    """The compose file, its anchors resolved."""
    return yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())


def commands() -> Iterator[Command]:
    """The command lines of all containers of compose.yaml and of the manifests; empty where the image's own is used."""
    for name, service in compose()["services"].items():
        yield Command(f"compose/{name}", (*service.get("entrypoint", []), *service.get("command", [])))
    for name, container in containers():
        yield Command(f"kubernetes/{name}", (*container.get("command", []), *container.get("args", [])))
