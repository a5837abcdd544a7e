"""What this driver waits for, as one request to the cluster's autoscaler that ends by itself.

`ray.autoscaler.sdk.request_resources` keeps one request per cluster: each call replaces the one before, a running Ray
Train's too, and the last one stays in force after its driver's death. Ray Train and Ray Data therefore share an actor
that sends the union of what they need and forgets a requester that falls silent; this driver is one more of them.
"""

import contextlib
import threading
import time
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator

from components.cluster.capacity import DATA_CPUS
from components.config import StepResources

EXPIRE_SECONDS = 60.0
"""Seconds after which the request of a driver that died is forgotten."""
RENEW_SECONDS = 20.0
"""Seconds between two renewals of an unchanged request."""
ANSWER_SECONDS = 5.0
"""Seconds that the actor has to answer; a request that it missed is sent again at the next renewal."""


class AutoscalerRequest:
    """The steps of this driver that wait for resources. Thread-safe."""

    def __init__(self) -> None:
        self._requester = f"vqvae2-{ray.get_runtime_context().get_job_id()}"
        self._lock = threading.Lock()
        self._waiting: dict[str, StepResources] = {}
        self._sent_at = float("-inf")

    def add(self, step: str, resources: StepResources) -> None:
        """Ask for what `step` waits for, beside what is asked for already; call it again at times while it waits."""
        with self._lock:
            changed = self._waiting.get(step) != resources
            self._waiting[step] = resources
            if changed or time.monotonic() - self._sent_at > RENEW_SECONDS:
                self._send()

    def remove(self, step: str) -> None:
        """`step` waits no more: Ray Train and Ray Data ask for what they use themselves."""
        with self._lock:
            if self._waiting.pop(step, None) is not None:
                self._send()

    def bundles(self) -> list[dict[str, float]]:
        """One bundle per worker that is waited for, and one for the tasks that read; empty when nothing waits."""
        workers = [
            {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
            for resources in self._waiting.values()
            for _ in range(resources.workers)
        ]
        return [*workers, {"CPU": DATA_CPUS}] if workers else []

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        with contextlib.suppress(ray.exceptions.RayError):
            actor: Any = get_or_create_autoscaling_coordinator()
            if bundles := self.bundles():
                sent = actor.request_resources.remote(
                    requester_id=self._requester, resources=bundles, expire_after_s=EXPIRE_SECONDS
                )
            else:
                sent = actor.cancel_request.remote(requester_id=self._requester)
            ray.get(sent, timeout=ANSWER_SECONDS)
