"""`encode`, `verify` and `show`: code datasets of any images, outside of a pipeline run."""

import argparse
import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ConfigDict

from components.artifacts import digest_of
from components.codes.config import CodesConfig
from components.codes.dataset import LEASE_FOLDER, CodeDataset, TokenizerFiles, read_dataset, tokenizer_digest
from components.codes.verify import DatasetFault
from components.codes.verify import verify_dataset as faults_of
from components.config import StepResources
from components.errors import StorageError, UsageError
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.rejects import REJECTS_FILE
from components.images.sources import list_images
from components.progress import Progress
from components.store import commits, objects, parquet
from components.store.lease import TIME_TO_LIVE, acquire_lease, keep_alive
from components.store.weights import CONFIG_FILE, describe_tokenizer
from components.workspace import Workspace
from pipeline.cli import FAILED, OK
from pipeline.config import apply_overrides, to_plain, validate_config
from pipeline.verbs.tables import format_bytes, make_printer, make_table
from pipeline.verbs.use import find_model

SNAPSHOTS = "snapshots"
LEASE_WAIT_SECONDS = TIME_TO_LIVE + 5
"""Seconds that another job on the same dataset gets to show a sign of life."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """What `--set` may set."""

    images: ImagesConfig
    codes: CodesConfig = field(default_factory=CodesConfig)
    resources: StepResources = field(default_factory=lambda: StepResources(workers=os.cpu_count() or 1, readers=0))
    """Encoders, and the readers of each."""


EncodeConfig.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]


class SilentJournal:
    """A journal nobody reads: the dataset's manifest says what there is to say."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def picture(self, name: str, png: bytes, step: int | None = None) -> None:
        """Nothing."""

    def document(self, name: str, text: str) -> None:
        """Nothing."""


# --- encode -----------------------------------------------------------------------------------------------------------


def encode_images(options: argparse.Namespace) -> int:
    """Encode all images of a source into <output>/<tokenizer digest>/; what is there already stays."""
    progress = Progress()
    with _tokenizer(options.tokenizer, options.state) as tokenizer:
        config = _config(options, tokenizer)
        output = objects.absolute(options.output)
        folder = objects.join(output, tokenizer.digest)
        progress.say(f"encoding {config.images.uri} with tokenizer {tokenizer.digest[:12]} into {folder}")
        listing = list_images(config.images, "")
        objects.check_writable(output)
        snapshot = _snapshot(config.images, listing, output, progress)
        if _is_done(folder, snapshot):
            progress.say("nothing to do: the dataset holds these images already")
        else:
            _work(folder, snapshot, tokenizer, config, progress)
    _print(read_dataset(folder))
    return OK


def _config(options: argparse.Namespace, tokenizer: TokenizerFiles) -> EncodeConfig:
    described = describe_tokenizer(tokenizer.folder)
    images = {
        "source": options.source,
        "uri": options.images,
        "labels": options.labels,
        "image_size": described.image_size,
        "channels": described.channels,
    }
    tree = {"images": images}
    apply_overrides(tree, options.overrides, "encode")
    return validate_config(EncodeConfig, tree, "encode")


@contextlib.contextmanager
def _tokenizer(source: str, state: str) -> Iterator[TokenizerFiles]:
    """The tokenizer that `source` names: a folder, a registered model, or a config (its newest run)."""
    if (Path(source) / CONFIG_FILE).is_file():
        yield TokenizerFiles(Path(source), tokenizer_digest(Path(source)))
        return
    with find_model(source, (), state, "tokenizer") as found:
        model = found.title if found.title.startswith("models:/") else None
        yield TokenizerFiles(found.parts["tokenizer"], found.artifact.digest, model, found.artifact.run_id)


def _snapshot(config: ImagesConfig, listing: Listing, output: str, progress: Progress) -> str:
    """Folder of the snapshot of what the source holds now. Nothing is decoded: encoding will tell what is unusable."""
    settings = {name: value for name, value in to_plain(config).items() if name not in ("uri", "max_rejects")}
    folder = objects.join(output, SNAPSHOTS, digest_of([settings, config.uri, listing.digest()])[:16])
    with contextlib.suppress(FileNotFoundError):
        commits.read_manifest(folder)
        progress.say(f"{listing.table.num_rows:,} images, as listed before ({folder})")
        return folder
    commit_snapshot(folder, listing, [], config, seed=0)
    progress.say(f"{listing.table.num_rows:,} images, {listing.ignored:,} other files passed over ({folder})")
    return folder


def _is_done(folder: str, snapshot: str) -> bool:
    """Whether the dataset in `folder` is of this very snapshot, and all its files are there."""
    try:
        dataset = read_dataset(folder)
    except (FileNotFoundError, StorageError):
        return False
    same = dataset.facts["snapshot"] == commits.read_manifest(snapshot)["digest"]
    return same and not commits.artifact_faults(folder, dataset.digest)


def _work(
    folder: str,
    snapshot: str,
    tokenizer: TokenizerFiles,
    config: EncodeConfig,
    progress: Progress,
    distrusted: frozenset[str] = frozenset(),
) -> None:
    from components.cluster.step import Cluster
    from components.codes.step import encode_snapshot as make

    lease = acquire_lease(
        objects.join(folder, LEASE_FOLDER),
        wait=LEASE_WAIT_SECONDS,
        tell=progress.say,
        alone=not os.environ.get("RAY_ADDRESS"),
    )
    with keep_alive(lease):
        resources = config.resources
        cluster = Cluster(local_cpus=resources.workers * (resources.cpus + resources.readers / 2) + 2)
        progress.say(cluster.describe())
        make(
            config.codes,
            snapshot,
            tokenizer,
            max_rejects=config.images.max_rejects,
            resources=resources,
            cluster=cluster,
            workspace=Workspace(
                name="encode",
                fingerprint=tokenizer.digest,
                uri=folder,
                seed=0,
                lease=lease,
                journal=SilentJournal(),
                progress=progress,
            ),
            distrusted=distrusted,
        )


# --- verify -----------------------------------------------------------------------------------------------------------


def verify_datasets(options: argparse.Namespace) -> int:
    """Read every dataset back; with --repair, make again just what is wrong."""
    bad = 0
    for folder in _datasets(options.folder):
        found = _verified(folder)
        if found and options.repair:
            _repair(folder, found, options.overrides)
            found = _verified(folder)
        bad += bool(found)
    return FAILED if bad else OK


def _verified(folder: str) -> list[DatasetFault]:
    progress = Progress()
    found = faults_of(folder, lambda done, total: progress.update("verify", done=done, total=total, unit="shards"))
    progress.finish("verify")
    dataset = read_dataset(folder)
    verdict = f"{len(found)} faults" if found else "whole"
    progress.say(f"{folder}: {dataset.facts['rows']:,} rows in {len(dataset.shards):,} shards, {verdict}")
    for fault in found:
        progress.say(f"  {fault}")
    return found


def _repair(folder: str, found: Sequence[DatasetFault], overrides: Sequence[str]) -> None:
    dataset, progress = read_dataset(folder), Progress()
    facts = dataset.facts
    with TemporaryDirectory() as local:
        objects.download(objects.join(folder, "tokenizer"), Path(local))
        if tokenizer_digest(Path(local)) != facts["tokenizer"]:
            raise UsageError(
                f"the copy of the tokenizer in {folder} is damaged: run `python -m pipeline encode` with the tokenizer "
                f"{facts['tokenizer_model'] or facts['tokenizer'][:12]} instead, which puts it back"
            )
        tree: dict[str, Any] = {"images": {"source": "digits", "image_size": 8}, "codes": dict(facts["settings"])}
        apply_overrides(tree, overrides, "verify --repair")
        config = validate_config(EncodeConfig, tree, "verify --repair")
        tokenizer = TokenizerFiles(Path(local), facts["tokenizer"], facts["tokenizer_model"], facts["tokenizer_run"])
        distrusted = frozenset(fault.path for fault in found if fault.path)
        _work(folder, facts["snapshot_uri"], tokenizer, config, progress, distrusted)


def _datasets(place: str) -> list[str]:
    """The dataset in the folder `place`, or all in the output prefix `place`."""
    root = objects.absolute(place)
    found = [path for path in objects.object_sizes(root) if path.endswith(commits.MANIFEST_FILE)]
    if commits.MANIFEST_FILE in found:
        return [root]
    folders = [path.rpartition("/")[0] for path in found]
    datasets = sorted(folder for folder in folders if "/" not in folder and folder != SNAPSHOTS)
    if not datasets:
        raise UsageError(f"{place} must be a code dataset or a folder of them, found no {commits.MANIFEST_FILE} there")
    return [objects.join(root, folder) for folder in datasets]


# --- show -------------------------------------------------------------------------------------------------------------


def show_datasets(options: argparse.Namespace) -> int:
    """What is in every dataset: counts, codebooks, bytes, rejects."""
    for folder in _datasets(options.folder):
        _print(read_dataset(folder))
    return OK


def _print(dataset: CodeDataset) -> None:
    facts, out = dataset.facts, make_printer()
    splits = ", ".join(f"{rows:,} {split}" for split, rows in sorted(facts["splits"].items()))
    total = sum(shard.size for shard in dataset.shards)
    floor = (
        sum(level.height * level.width * (level.codebook_size - 1).bit_length() for level in dataset.schema.levels) / 8
    )
    lines = {
        "folder": dataset.folder,
        "digest": f"{dataset.digest[:12]}, version {dataset.version}",
        "rows": f"{facts['rows']:,} ({splits}) in {len(dataset.shards):,} shards",
        "classes": f"{len(facts['classes']):,}",
        "bytes": f"{format_bytes(total)}, {dataset.bytes_per_image:,.0f} an image (in whole bits a code: {floor:,.0f})",
        "rejects": _rejects(dataset),
        "tokenizer": f"{facts['tokenizer'][:12]} ({facts['tokenizer_model'] or 'not registered'})",
        "MLflow run": facts["tokenizer_run"] or "not known",
        "snapshot": f"{facts['snapshot'][:12]} ({facts['snapshot_uri']})",
    }
    for name, text in lines.items():
        out.print(f"{name:<11} {text}", soft_wrap=True)
    levels, usage = make_table("", "level", "map", "codes", "used", right=("codes", "used")), dataset.usage()
    for level in dataset.schema.levels:
        levels.add_row(
            level.name, f"{level.height}x{level.width}", str(level.codebook_size), f"{usage[level.name]:.1%}"
        )
    out.print(levels)


def _rejects(dataset: CodeDataset) -> str:
    if not dataset.facts["rejects"]:
        return "none"
    table = parquet.from_bytes(objects.read_bytes(objects.join(dataset.folder, REJECTS_FILE)), columns=["reason"])
    counted = Counter(table["reason"].to_pylist()).most_common(8)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counted)
    return f"{dataset.facts['rejects']:,} ({reasons}): {objects.join(dataset.folder, REJECTS_FILE)}"
