"""JSON schemas of the KubeRay fields that infra/kubernetes uses, from the ray.io/v1 API; any other field is refused.

No package contains KubeRay's own definitions. Pod templates are not restricted here: they are checked with the schemas
of Kubernetes.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def fields(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object with these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


METADATA = fields(name=TEXT, generateName=TEXT, namespace=TEXT, labels=TEXTS) | {
    "oneOf": [{"required": ["name"]}, {"required": ["generateName"]}]
}
TEMPLATE = fields(("spec",), metadata={"type": "object"}, spec={"type": "object"})
RESOURCES = fields(requests=TEXTS, limits=TEXTS)

AUTOSCALER = fields(
    version={"enum": ["v1", "v2"]},
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    idleTimeoutSeconds=COUNT,
    resources=RESOURCES,
    securityContext={"type": "object"},
)
HEAD = fields(("template",), serviceType={"enum": ["ClusterIP"]}, rayStartParams=TEXTS, template=TEMPLATE)
WORKERS = fields(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    groupName={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TEXTS,
    template=TEMPLATE,
)
CLUSTER_SPEC = fields(
    ("rayVersion", "headGroupSpec"),
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=fields(("mode",), mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=AUTOSCALER,
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
JOB_SPEC = fields(
    ("entrypoint", "clusterSelector"),
    entrypoint=TEXT,
    entrypointNumCpus={"type": "number", "minimum": 0},
    clusterSelector=fields(("ray.io/cluster",), **{"ray.io/cluster": TEXT}),
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
)


def _document(kind: str, spec: Schema) -> Schema:
    wanted = {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}}
    return fields(("apiVersion", "kind", "metadata", "spec"), **wanted, metadata=METADATA, spec=spec)


SCHEMAS = {"RayCluster": _document("RayCluster", CLUSTER_SPEC), "RayJob": _document("RayJob", JOB_SPEC)}
