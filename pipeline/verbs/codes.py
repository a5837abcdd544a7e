"""`encode`, `verify` and `show`: code datasets of any images, outside of a pipeline run."""

import argparse
import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ConfigDict

from components.codes.config import CodesConfig
from components.codes.dataset import (
    TOKENIZER_FOLDER,
    CodeDataset,
    TokenizerFiles,
    read_dataset,
    tokenizer_digest,
)
from components.codes.facts import describe_agreement
from components.codes.verify import DatasetFault, check_dataset
from components.config import StepResources
from components.errors import ExitCode, StorageError, UsageError
from components.images.config import ImagesConfig, ImagesExecution
from components.images.rejects import REJECTS_FILE
from components.images.sources.registry import list_images, outputs_below
from components.progress import Progress
from components.store import commits, objects, parquet
from components.store.lease import TIME_TO_LIVE, acquire_lease, keep_alive, lease_folder
from components.store.probes import check_writable
from components.store.weights import CONFIG_FILE
from components.tokenizer.stored import describe_tokenizer
from components.workspace import ComputeCluster, Workspace
from pipeline.config_files import apply_overrides, use_current_names, validate_config
from pipeline.models import find_model
from pipeline.verbs.output_snapshots import SNAPSHOTS_FOLDER, output_snapshot, sweep_output_snapshots
from pipeline.verbs.tables import format_bytes, make_printer, make_table

LEASE_WAIT_SECONDS = TIME_TO_LIVE + 5
"""Seconds to wait for another job on the same dataset: a lease without sign of life is taken over before that."""
DRIVER_CPUS_BESIDE_ENCODERS = 2
"""Logical CPUs that a local Ray has in addition to those of its encoders and their readers."""


def _all_cores() -> StepResources:
    return StepResources(workers=os.cpu_count() or 1, readers=0)


@dataclass(frozen=True, kw_only=True)
class RepairConfig:
    """What `--set` may set for `verify --repair`."""

    images: ImagesExecution = field(default_factory=ImagesExecution)
    codes: CodesConfig = field(default_factory=CodesConfig)
    resources: StepResources = field(default_factory=_all_cores)
    """Encoders, and the readers of each."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(RepairConfig):
    """What `--set` may set for `encode`."""

    images: ImagesConfig


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
RepairConfig.__pydantic_config__ = EncodeConfig.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]


# --- encode -----------------------------------------------------------------------------------------------------------


def encode_images(options: argparse.Namespace) -> int:
    """Encode all images of a source into <output>/<tokenizer digest>/; existing codes are reused."""
    progress = Progress()
    with _tokenizer_files(options.tokenizer, options.state) as tokenizer:
        config = _encode_config(options, tokenizer)
        output = objects.absolute(options.output)
        folder = objects.join(output, tokenizer.digest)
        progress.say(f"encoding {config.images.uri} with tokenizer {tokenizer.digest[:12]} into {folder}")
        for inside in outputs_below(config.images, [output]):
            progress.say(f"{inside} is the output: its files are not images")
        listing = list_images(config.images, "", [output])
        check_writable(output)
        snapshot = output_snapshot(config.images, listing, output, progress)
        if _is_done(folder, snapshot):
            progress.say("nothing to do: the dataset holds these images already")
        else:
            _run_job(folder, snapshot, tokenizer, config, progress)
    sweep_output_snapshots(output)
    _print_dataset(read_dataset(folder))
    return ExitCode.DONE


def _encode_config(options: argparse.Namespace, tokenizer: TokenizerFiles) -> EncodeConfig:
    description = describe_tokenizer(tokenizer.folder)
    images = {
        "source": options.source,
        "uri": options.images,
        "labels": options.labels,
        "image_size": description.image_size,
        "channels": description.channels,
    }
    tree = {"images": images}
    apply_overrides(tree, options.overrides, "encode")
    return validate_config(EncodeConfig, tree, "encode")


@contextlib.contextmanager
def _tokenizer_files(source: str, state: str) -> Iterator[TokenizerFiles]:
    """The tokenizer that `source` names: a folder, a registered model, or a config (its newest run)."""
    if (Path(source) / CONFIG_FILE).is_file():
        yield TokenizerFiles(Path(source), tokenizer_digest(Path(source)))
        return
    with find_model(source, (), state, "tokenizer") as model:
        artifact = model.artifact
        yield TokenizerFiles(model.parts["tokenizer"], artifact.digest, model.registered_uri, artifact.run_id)


def _is_done(folder: str, snapshot: str) -> bool:
    """Whether the dataset in `folder` was encoded from this snapshot and has all its files."""
    try:
        dataset = read_dataset(folder)
    except (FileNotFoundError, StorageError):
        return False
    same = dataset.facts.snapshot == commits.read_manifest(snapshot)["digest"]
    return same and not commits.artifact_faults(folder, dataset.digest)


def _run_job(
    folder: str,
    snapshot: str,
    tokenizer: TokenizerFiles,
    config: RepairConfig,
    progress: Progress,
    repaired: CodeDataset | None = None,
    distrusted: frozenset[str] = frozenset(),
) -> None:
    """Run one encode job under the dataset's lease, which the step `codes` of a run takes too.

    Shards of the dataset `repaired` whose paths are `distrusted` are made again, unless others have committed since.
    """
    from components.codes.step import encode_snapshot

    lease = acquire_lease(
        lease_folder(folder),
        wait_seconds=LEASE_WAIT_SECONDS,
        report=progress.say,
        ends_with_driver=not os.environ.get("RAY_ADDRESS"),
    )
    with keep_alive(lease), contextlib.ExitStack() as until_end:
        if repaired is not None and read_dataset(folder) != repaired:
            progress.say(f"{folder} was committed again since it was read: nothing is repaired")
            return
        cluster = until_end.enter_context(_encode_cluster(config.resources, folder, progress))
        encode_snapshot(
            config.codes,
            snapshot,
            tokenizer,
            max_rejects=config.images.max_rejects,
            resources=config.resources,
            workspace=Workspace(
                name="encode",
                fingerprint=tokenizer.digest,
                uri=folder,
                seed=0,
                lease=lease,
                base=commits.head_number(folder),
                progress=progress,
                connect=lambda: cluster,
            ),
            distrusted=distrusted,
        )


@contextlib.contextmanager
def _encode_cluster(resources: StepResources, folder: str, progress: Progress) -> Iterator[ComputeCluster]:
    """The cluster, left at the end; raises UsageError when a node of it does not see `folder`."""
    from components.cluster.step import Cluster

    per_worker = resources.cpus + resources.readers / 2  # a reader asks for half a CPU
    with contextlib.closing(
        Cluster(local_cpus=resources.workers * per_worker + DRIVER_CPUS_BESIDE_ENCODERS)
    ) as cluster:
        progress.say(cluster.describe())
        cluster.check_shared(folder, "the folder of the dataset")
        yield cluster


# --- verify -----------------------------------------------------------------------------------------------------------


def verify_datasets(options: argparse.Namespace) -> int:
    """Read every dataset back; with --repair, make only damaged parts again."""
    damaged = 0
    for folder in _dataset_folders(options.folder):
        dataset = read_dataset(folder)
        faults = _report_faults(dataset)
        if faults and options.repair:
            _repair(dataset, faults, options.overrides)
            faults = _report_faults(read_dataset(folder))
        damaged += bool(faults)
    return ExitCode.FAILED if damaged else ExitCode.DONE


def _report_faults(dataset: CodeDataset) -> list[DatasetFault]:
    progress = Progress()
    faults = check_dataset(
        dataset, lambda read, total: progress.update("verify", done=read, total=total, unit="shards")
    )
    progress.finish("verify")
    verdict = f"{len(faults)} faults" if faults else "whole"
    progress.say(f"{dataset.folder}: {dataset.facts.rows:,} rows in {len(dataset.shards):,} shards, {verdict}")
    for fault in faults:
        progress.say(f"  {fault}")
    return faults


def _repair(dataset: CodeDataset, faults: Sequence[DatasetFault], overrides: Sequence[str]) -> None:
    folder, facts = dataset.folder, dataset.facts
    with TemporaryDirectory() as local:
        objects.download(dataset.uri_of(TOKENIZER_FOLDER), Path(local))
        if tokenizer_digest(Path(local)) != facts.tokenizer:
            raise UsageError(
                f"the copy of the tokenizer in {folder} is damaged: run `python -m pipeline encode` with the tokenizer "
                f"{facts.tokenizer_model or facts.tokenizer[:12]} instead, which restores it"
            )
        tree: dict[str, Any] = {"codes": dict(facts.settings)}
        use_current_names(tree, folder)
        apply_overrides(tree, overrides, "verify --repair")
        config = validate_config(RepairConfig, tree, "verify --repair")
        tokenizer = TokenizerFiles(Path(local), facts.tokenizer, facts.tokenizer_model, facts.tokenizer_run)
        distrusted = frozenset(fault.path for fault in faults if fault.path)
        _run_job(folder, facts.snapshot_uri, tokenizer, config, Progress(), dataset, distrusted)


def _dataset_folders(path: str) -> list[str]:
    """The dataset in the folder `path`, or all datasets one folder below it; raises UsageError without any."""
    root = objects.absolute(path)
    folders = commits.artifact_folders(objects.object_sizes(root))
    if "" in folders:
        return [root]
    datasets = sorted(folder for folder in folders if "/" not in folder and folder != SNAPSHOTS_FOLDER)
    if not datasets:
        raise UsageError(f"{path} must be a code dataset or a folder of them, found no manifest there")
    return [objects.join(root, folder) for folder in datasets]


# --- show -------------------------------------------------------------------------------------------------------------


def show_datasets(options: argparse.Namespace) -> int:
    """Print counts, codebooks, bytes and rejects of every dataset."""
    for folder in _dataset_folders(options.folder):
        _print_dataset(read_dataset(folder))
    return ExitCode.DONE


def _print_dataset(dataset: CodeDataset) -> None:
    facts, out = dataset.facts, make_printer()
    splits = ", ".join(f"{rows:,} {split}" for split, rows in sorted(facts.splits.items()))
    total = sum(shard.size for shard in dataset.shards)
    # Bytes per image if every code took ceil(log2 K) bits.
    floor = (
        sum(level.height * level.width * (level.codebook_size - 1).bit_length() for level in dataset.schema.levels) / 8
    )
    lines = {
        "folder": dataset.folder,
        "digest": f"{dataset.digest[:12]}, version {dataset.facts.version}",
        "rows": f"{facts.rows:,} ({splits}) in {len(dataset.shards):,} shards",
        "classes": f"{len(facts.classes):,}",
        "bytes": f"{format_bytes(total)}, {dataset.bytes_per_image:,.0f} per image (whole bits per code: {floor:,.0f})",
        "precision": _describe_precision(dataset),
        "rejects": _describe_rejects(dataset),
        "tokenizer": f"{facts.tokenizer[:12]} ({facts.tokenizer_model or 'not registered'})",
        "MLflow run": facts.tokenizer_run or "not known",
        "snapshot": f"{facts.snapshot[:12]} ({facts.snapshot_uri})",
    }
    for name, text in lines.items():
        out.print(f"{name:<11} {text}", soft_wrap=True)
    levels, usage = make_table("", "level", "map", "codes", "used", right=("codes", "used")), dataset.usage()
    for level in dataset.schema.levels:
        levels.add_row(
            level.name, f"{level.height}x{level.width}", str(level.codebook_size), f"{usage[level.name]:.1%}"
        )
    out.print(levels)


def _describe_precision(dataset: CodeDataset) -> str:
    precision = dataset.facts.settings.get("precision", "float32")
    if precision == "float32":
        return precision
    measured = describe_agreement(dataset.float32_agreement(), "codes ")
    return f"{precision}, {measured or 'some codes differ from those of the served float32 tokenizer (not measured)'}"


def _describe_rejects(dataset: CodeDataset) -> str:
    if not dataset.facts.rejects:
        return "none"
    table = parquet.from_bytes(objects.read_bytes(dataset.uri_of(REJECTS_FILE)), columns=["reason"])
    counted = Counter(table["reason"].to_pylist()).most_common(8)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counted)
    return f"{dataset.facts.rejects:,} ({reasons}): {dataset.uri_of(REJECTS_FILE)}"
