"""Runs encode jobs for tests and reads their output."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.codes.config import CodesConfig
from components.codes.dataset import TokenizerFiles, read_dataset
from components.codes.step import encode_snapshot
from components.config import StepResources
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.sources.registry import list_images
from components.progress import Progress
from components.store import commits, objects, parquet
from components.store.lease import acquire_lease, keep_alive, lease_folder
from components.workspace import ComputeCluster, StepOutput, Workspace

SMALL = CodesConfig(rows_per_shard=8, rows_per_wave=160, batch_size=4)
"""Many shards of few images, in one wave."""
WAVES = replace(SMALL, rows_per_wave=64)
"""The same number of rows per shard, in several waves."""


def commit_images(images: str, folder: str, **settings: Any) -> str:
    """Commit a snapshot of the files under `images` without decoding them; returns its folder."""
    config = ImagesConfig(**{"source": "files", "uri": images, "image_size": 16, "channels": 1, **settings})
    commit_snapshot(folder, list_images(config, folder), [], config, seed=0)
    return folder


def run_encode_job(
    folder: str,
    snapshot: str,
    tokenizer: TokenizerFiles,
    cluster: ComputeCluster | None,
    config: CodesConfig = SMALL,
    *,
    max_rejects: float = 0.01,
    resources: StepResources = StepResources(workers=2, readers=0),  # noqa: B008
    progress: Progress | None = None,
    wait: float = 0.2,
    **more: Any,
) -> StepOutput:
    """Run one encode job under its lease; without a cluster it works in this process."""
    lease = acquire_lease(lease_folder(folder), wait_seconds=wait, report=print)
    workspace = Workspace(
        name="encode",
        fingerprint="",
        uri=folder,
        seed=0,
        lease=lease,
        base=commits.head_number(folder),
        progress=progress or Progress(),
        connect=lambda: cluster,
    )
    with keep_alive(lease):
        return encode_snapshot(
            config,
            snapshot,
            tokenizer,
            max_rejects=max_rejects,
            resources=resources,
            workspace=workspace,
            **more,
        )


def dataset_rows(folder: str) -> list[dict]:
    """The rows of all shards in the manifest, sorted by key and copy."""
    dataset = read_dataset(folder)
    tables = [parquet.from_bytes(objects.read_bytes(objects.join(folder, shard.path))) for shard in dataset.shards]
    return sorted((row for table in tables for row in table.to_pylist()), key=lambda row: (row["key"], row["copy"]))


def shard_write_times(folder: str | Path) -> dict[str, int]:
    """Modification time in nanoseconds of each shard file, by its path in the dataset's folder."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in Path(folder).glob("*/part-*.parquet")}


def call_when(condition: Callable[[], bool], then: Callable[[], Any], seconds: float = 60) -> threading.Thread:
    """Start a thread that calls `then` as soon as `condition` holds."""

    def watch() -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                then()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def kill_encode_worker() -> None:
    """Send SIGKILL to one encode worker of the Ray that this process started."""
    os.kill(encode_workers()[0], signal.SIGKILL)


def encode_workers() -> list[int]:
    """Processes of the encode workers that are alive in the Ray that this process started."""
    found = []
    for pid in _descendants(os.getpid()):
        with contextlib.suppress(OSError):  # the process ended in the meantime
            found += [pid] if b"EncodeWorker" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
    return found


def _descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process ended in the meantime
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    children = [child for child, parent in parents.items() if parent == pid]
    return children + [descendant for child in children for descendant in _descendants(child)]
