"""Algorithm 2, lines 1-6, on Ray Data: encode the FULL snapshot to Parquet shards.

A shard is a fixed range of the snapshot's rows and its name says which, so a task that is tried twice writes the same
bytes to the same name, and a job that was killed goes on with the shards that are missing.
"""

import json
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import ray.data
import torch

from components import storage
from components.artifacts import Artifact
from components.cluster.step import Cluster, quiet_data
from components.codes.config import CodesConfig
from components.codes.reader import read_codes, usage
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import Shard, build_shard, commit_codes, find_shards, shard_ranges, write_shard
from components.config import Share
from components.images.config import ImagesConfig
from components.images.manifest import read_snapshot
from components.images.pixels import PixelReader
from components.images.split import HELD_OUT, TRAIN
from components.lease import Lease
from components.tokenizer.model import to_images
from components.weights import describe_tokenizer, load_tokenizer
from components.workspace import Outcome, Workspace


def encode(
    config: CodesConfig,
    images_config: ImagesConfig,
    images: Artifact,
    tokenizer: Artifact,
    *,
    share: Share,
    cluster: Cluster,
    workspace: Workspace,
) -> Outcome:
    """Encode every row of the snapshot `images` with `tokenizer` and commit the shards."""
    snapshot = read_snapshot(images.uri)
    schema = _schema(images, tokenizer, images_config.image_size)
    ids = np.asarray(snapshot.table["id"])
    shards = find_shards(workspace.uri, schema, ids, config.rows_a_shard)
    if shards:
        workspace.progress.say(f"codes: {len(shards)} shards are there already")
    missing = [one.index for one in shard_ranges(len(ids), config.rows_a_shard) if one.index not in shards]
    settings = {
        "config": config,
        "images_config": images_config,
        "images": images.uri,
        "tokenizer": tokenizer.uri,
        "folder": workspace.uri,
        "schema": schema,
        "seed": workspace.seed,
        "lease": workspace.lease,
        "gpu": share.gpus > 0,
    }
    with cluster.share("codes", share):
        for shard in _encoded(
            missing, settings, share, workspace, done=sum(shard.rows for shard in shards.values()), total=len(ids)
        ):
            shards[shard[0]] = shard[1]
    workspace.lease.check()
    digest = commit_codes(workspace.uri, schema, shards.values(), rows=len(ids))
    return Outcome(digest=digest, facts=_facts(workspace.uri, schema))


def _schema(images: Artifact, tokenizer: Artifact, image_size: int) -> CodeSchema:
    levels = describe_tokenizer(storage.local_copy(tokenizer.uri)).settings.levels
    sides = [image_size // level.stride for level in levels]
    return CodeSchema(
        levels=tuple(
            CodeLevel(name=level.name, height=side, width=side, codebook_size=level.codebook_size)
            for level, side in zip(levels, sides, strict=True)
        ),
        tokenizer_digest=tokenizer.digest,
        snapshot_digest=images.digest,
    )


def _encoded(
    missing: list[int], settings: dict[str, Any], share: Share, workspace: Workspace, *, done: int, total: int
) -> Any:
    """(number, shard) of each shard as it is written."""
    if not missing:
        return
    quiet_data()
    dataset = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
        _Encoder,
        batch_size=1,
        num_cpus=share.cpus,
        num_gpus=share.gpus or None,
        fn_constructor_kwargs=settings,
        compute=ray.data.ActorPoolStrategy(size=min(share.workers, len(missing))),
    )
    started, before, written = time.monotonic(), done, 0
    for row in dataset.iter_rows():
        shard = json.loads(row["shard"])
        file = storage.FileEntry(**shard.pop("file"))
        done, written = done + shard["rows"], written + file.size
        rate = (done - before) / (time.monotonic() - started)
        workspace.progress.update(
            "codes", done=done, total=total, unit="images", rate=rate, note=f"{written / 1e6:.1f} MB"
        )
        workspace.journal.metrics(done, {"images_per_second": rate, "bytes_written": written})
        yield int(row["number"]), Shard(file, **shard)
    workspace.progress.finish("codes")


class _Encoder:
    """An actor of the pool: holds the tokenizer, makes one shard a call."""

    def __init__(
        self,
        *,
        config: CodesConfig,
        images_config: ImagesConfig,
        images: str,
        tokenizer: str,
        folder: str,
        schema: CodeSchema,
        seed: int,
        lease: Lease,
        gpu: bool,
    ) -> None:
        self._config, self._folder, self._schema, self._lease = config, folder, schema, lease
        self._rows = read_snapshot(images).table
        self._reader = PixelReader(images_config, seed)
        self._device = "cuda" if gpu else "cpu"
        self._model = load_tokenizer(storage.local_copy(tokenizer)).to(self._device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        number = int(batch["item"][0])
        start = number * self._config.rows_a_shard
        rows = self._rows.slice(start, self._config.rows_a_shard)
        parts = [
            self._codes(rows.slice(first, self._config.batch_size))
            for first in range(0, rows.num_rows, self._config.batch_size)
        ]
        maps = [np.concatenate(level) for level in zip(*(maps for maps, _ in parts), strict=True)]
        errors = np.concatenate([error for _, error in parts])
        table = build_shard(self._schema, rows, maps, errors)
        self._lease.check()
        shard = write_shard(self._folder, number, table)
        told = {"file": asdict(shard.file), "rows": shard.rows, "splits": shard.splits}
        return {"number": np.array([number]), "shard": np.array([json.dumps(told)])}

    @torch.no_grad()
    def _codes(self, rows: Any) -> tuple[list[np.ndarray], np.ndarray]:
        """Code maps (n, h, w) a level, and mean squared reconstruction error (n,), of some rows."""
        images = to_images(torch.from_numpy(self._reader.read(rows)).to(self._device))
        maps = self._model.encode(images)
        errors = (self._model.decode(maps) - images).square().mean(dim=(1, 2, 3))
        return [codes.cpu().numpy() for codes in maps], errors.float().cpu().numpy()


def _facts(folder: str, schema: CodeSchema) -> dict[str, Any]:
    manifest = storage.read_manifest(folder)
    train, held_out = read_codes(folder, TRAIN), read_codes(folder, HELD_OUT)
    stored = sum(file["size"] for file in manifest["files"])
    facts: dict[str, Any] = {"rows": manifest["facts"]["rows"], "shards": manifest["facts"]["shards"], "bytes": stored}
    facts |= {
        "train_rows": len(train),
        "held_out_rows": len(held_out),
        "bytes_an_image": stored / manifest["facts"]["rows"],
    }
    return facts | {f"usage_{level.name}": usage(train, level.name) for level in schema.levels}
