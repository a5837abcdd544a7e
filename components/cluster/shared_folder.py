"""Whether every node of the cluster sees a folder that the driver writes to."""

import contextlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from components.errors import UsageError
from components.store import objects
from components.store.probes import probe_uri

PROBE_SECONDS = 30.0
"""Seconds that a node has to look: it starts a process for it."""
LOOKS, LOOK_SECONDS = 5, 0.5
"""A network file system may show a new file with a delay."""


def check_shared(folder: str, what: str) -> None:
    """Raise UsageError when a node cannot read what the driver writes to the local folder `folder`, named `what`.

    Each node gets a task that reads a random token. Object stores and clusters of one node need no such look.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if not objects.is_local(folder) or len(nodes) < 2:
        return
    token = secrets.token_bytes(16)
    probe = objects.local_path(probe_uri(folder))
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(token)
    try:
        read = ray.remote(num_cpus=0, max_retries=0)(_read)
        here = {
            node["NodeManagerHostname"] + " " + node["NodeID"][:8]: read.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(probe))
            for node in nodes
        }
        ray.wait(list(here.values()), num_returns=len(here), timeout=PROBE_SECONDS)
        judge_probe({node: _answer(reference) for node, reference in here.items()}, token, folder, what)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def judge_probe(answers: Mapping[str, bytes | None], token: bytes, folder: str, what: str) -> None:
    """Raise UsageError unless every node of `answers` has read `token`; a node that did not answer (None) may be busy
    or gone, and is left to the step that meets it."""
    blind = sorted(node for node, content in answers.items() if content is not None and content != token)
    if blind:
        raise UsageError(
            f"{what} must be a folder that all {len(answers)} nodes of the cluster share, and {folder} is not seen by "
            f"{', '.join(blind)}: mount one folder at the same path on every node, or give s3://bucket/prefix"
        )


def _read(path: str) -> bytes:
    """What this node finds at `path`; empty where there is no such file."""
    for _ in range(LOOKS):
        with contextlib.suppress(OSError):
            return Path(path).read_bytes()
        time.sleep(LOOK_SECONDS)
    return b""


def _answer(reference: "ray.ObjectRef[bytes]") -> bytes | None:
    try:
        return ray.get(reference, timeout=0)
    except Exception:  # the node is gone, or has not answered in time
        return None
