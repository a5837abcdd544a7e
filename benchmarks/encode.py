"""How close an encode job comes to the speed of its parts: measures (a) the model, (b) decoding, (c) the job, in turn.

    python -m benchmarks.encode [--write]

Two cores, JPEGs of 256 pixels, a tokenizer of 128 hidden units. (a) and (b) run in two processes at once, as the job's
encoders do. Where both share the cores, they allow 1 / (1/a + 1/b) images per second together. The job's fixed cost is
the time of a job of one image; it is reported, and subtracted before speeds are compared.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from benchmarks.processes import describe_machine, measure
from components.codes.config import CodesConfig
from components.codes.dataset import TokenizerFiles, commit_dataset, read_dataset
from components.codes.reader import read_codes
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import build_shard, encode_shard, row_versions, write_shard
from components.images.config import PixelConfig
from components.images.decode import decode_image
from components.images.snapshot import SNAPSHOT_SCHEMA, StoredSnapshot
from components.images.split import TRAIN
from components.images.tensors import to_images
from components.tokenizer.config import LevelConfig, VQVAEArchitecture
from components.tokenizer.stored import TokenizerDescription, load_tokenizer, pack_tokenizer
from components.training.sample_order import batch_rows

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "encode.json"
WORKERS, BATCH, SIDE = 2, 8, 256
JOB = (
    f"resources.workers={WORKERS}",
    "codes.rows_per_shard=64",
    "codes.rows_per_wave=4096",
    f"codes.batch_size={BATCH}",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; with --write, write benchmarks/results/encode.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--seconds", type=float, default=8.0, help="per round, of (a) and of (b) each")
    parser.add_argument("--part", choices=("model", "decode"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/encode.json")
    options = parser.parse_args(arguments)
    if options.part:
        print({"model": _model, "decode": _decode}[options.part](options.folder, options.seconds))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _tokenizer(root / "tokenizer")
        _pictures(root / "many", options.images)
        _pictures(root / "one", 1)
        threads = [_two_threads(root) for _ in range(3)]
        rounds = [_round(root, options.seconds, options.images, number) for number in range(options.rounds)]
    result = {
        "machine": describe_machine(),
        "rounds": options.rounds,
        "images": options.images,
        **{name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]},
        "decode_speedup_of_two_threads": round(statistics.median(threads), 2),
        **_bytes_per_image(),
        **_read_back(),
    }
    print(json.dumps(result, indent=1))
    if options.write:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _round(root: Path, seconds: float, images: int, number: int) -> dict[str, float]:
    model, decoded = _at_once(root, "model", seconds), _at_once(root, "decode", seconds)
    fixed, fixed_cpu = _job(root, "one", number)
    whole, whole_cpu = _job(root, "many", number)
    allowed = 1 / (1 / model + 1 / decoded)
    speed = (images - 1) / (whole - fixed)
    print(f"round: a {model:.1f}, b {decoded:.1f}, c {speed:.1f} images/s, fixed {fixed:.1f} s", file=sys.stderr)
    return {
        "model_images_per_second": model,
        "decode_images_per_second": decoded,
        "allowed_images_per_second": allowed,
        "job_images_per_second": speed,
        "job_fraction_of_allowed": speed / allowed,
        "job_cpu_fraction_of_allowed": (images - 1) * WORKERS / (whole_cpu - fixed_cpu) / allowed,
        "fixed_wall_seconds": fixed,
        "fixed_cpu_seconds": fixed_cpu,
        "job_wall_seconds": whole,
        "load": os.getloadavg()[0],
    }


def _at_once(root: Path, part: str, seconds: float) -> float:
    """Images per second of WORKERS processes together."""
    line = [sys.executable, "-m", "benchmarks.encode", "--part", part, "--folder", str(root), "--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)]
    return sum(float(process.communicate()[0]) for process in running)


def _job(root: Path, pictures: str, number: int) -> tuple[float, float]:
    """Wall and CPU seconds of `python -m pipeline encode`, every process counted."""
    output = root / f"codes-{pictures}-{number}"
    line = [sys.executable, "-m", "pipeline", "encode", str(root / "tokenizer"), str(root / pictures), str(output)]
    line += [word for setting in JOB for word in ("--set", setting)]
    spent, wall = measure(line, root, {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    folder = next(path.parent for path in output.glob("*/manifests") if path.parent.name != "snapshots")
    assert read_dataset(str(folder)).facts.rows == len(list((root / pictures).iterdir()))
    return wall, sum(spent.values())


# --- the parts --------------------------------------------------------------------------------------------------------


def _model(root: Path, seconds: float) -> float:
    """Images per second of one process through the tokenizer's encode, from uint8 batches in memory."""
    torch.set_num_threads(1)
    model = load_tokenizer(root / "tokenizer").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8))
    for _ in range(2):
        model.encode(to_images(pixels))
    started, done = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        model.encode(to_images(pixels))
        done += BATCH
    return done / (time.monotonic() - started)


def _decode(root: Path, seconds: float) -> float:
    """Images per second of one process, from JPEG bytes in memory to pixels."""
    files = [path.read_bytes() for path in sorted((root / "many").iterdir())[:200]]
    config = PixelConfig(image_size=SIDE)
    started, done = time.monotonic(), 0
    while time.monotonic() - started < seconds / 2:
        decode_image(files[done % len(files)], config)
        done += 1
    return done / (time.monotonic() - started)


def _two_threads(root: Path, images: int = 600) -> float:
    """How much faster two threads of one process decode than one: 2 where the decoder releases the interpreter lock."""
    files = [path.read_bytes() for path in sorted((root / "many").iterdir())[:images]]
    config = PixelConfig(image_size=SIDE)
    seconds = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            started = time.monotonic()
            list(pool.map(lambda data: decode_image(data, config), files))
            seconds.append(time.monotonic() - started)
    return seconds[0] / seconds[1]


def _tokenizer(folder: Path) -> None:
    torch.manual_seed(0)
    levels = tuple(
        LevelConfig(name=name, stride=stride, codebook_size=512, code_width=64)
        for name, stride in (("top", 8), ("bottom", 4))
    )
    architecture = VQVAEArchitecture(levels=levels, hidden=128, residual_hidden=64, residual_layers=2)
    description = TokenizerDescription(architecture=architecture, channels=3, image_size=SIDE)
    folder.mkdir()
    for name, data in pack_tokenizer(description.build(), description).items():
        (folder / name).write_bytes(data)


def _pictures(folder: Path, count: int) -> None:
    """JPEGs of smooth shapes with some noise, 320x256."""
    folder.mkdir()
    y, x = np.mgrid[0:SIDE, 0:320]
    for number in range(count):
        random = np.random.default_rng(number)
        waves = [np.sin(x * random.uniform(0.01, 0.2) + y * random.uniform(0.01, 0.2)) for _ in range(3)]
        pixels = np.stack(waves, -1) * 100 + 128 + random.normal(0, 8, (SIDE, 320, 3))
        sink = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(sink, "JPEG", quality=90)
        (folder / f"{number:06}.jpg").write_bytes(sink.getvalue())


# --- on disk ----------------------------------------------------------------------------------------------------------


SCHEMA_256 = CodeSchema(
    levels=(
        CodeLevel(name="top", height=32, width=32, codebook_size=512),
        CodeLevel(name="bottom", height=64, width=64, codebook_size=512),
    ),
    tokenizer_digest="t" * 64,
    preprocessing="p" * 64,
)


def _shard(rows: int, skewed: bool, seed: int = 0) -> pa.Table:
    """Uniform or skewed codes (frequencies of 1, 1/2, 1/3, ...), with keys like those of image files."""
    random = np.random.default_rng(seed)
    columns = {
        "id": random.integers(0, 1 << 62, rows),
        "key": [f"n01440764/n01440764_{number}.JPEG" for number in range(rows)],
        "label": [number // 1300 for number in range(rows)],
        "split": ["train" if number % 10 else "held_out" for number in range(rows)],
        "copy": np.zeros(rows, np.int16),
        "content": [None] * rows,
        "uri": [""] * rows,
        "member": [None] * rows,
        "size": random.integers(1, 1 << 20, rows),
        "etag": [str(number) for number in range(rows)],
    }
    table = pa.table(
        [pa.array(columns[field.name]).cast(field.type) for field in SNAPSHOT_SCHEMA], schema=SNAPSHOT_SCHEMA
    )
    weights = 1 / np.arange(1, 513) if skewed else np.ones(512)
    maps = [random.choice(512, (rows, side, side), p=weights / weights.sum()) for side in (32, 64)]
    return build_shard(SCHEMA_256, table, row_versions(table), maps, random.random(rows))


def _bytes_per_image(rows: int = 4096) -> dict[str, float]:
    floor = (32 * 32 + 64 * 64) * 9 / 8
    sizes = {name: len(encode_shard(_shard(rows, name == "skewed"))) / rows for name in ("uniform", "skewed")}
    return {f"bytes_per_image_{name}": round(size, 1) for name, size in sizes.items()} | {
        f"fraction_of_nine_bits_{name}": round(size / floor, 4) for name, size in sizes.items()
    }


def _read_back(rows: int = 4096, shards: int = 4) -> dict[str, float]:
    """Images per second of one core: unpacking shards into the cache, and drawing random training batches from it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        folder, tokenizer = f"{root}/codes", Path(root) / "tokenizer"
        _tokenizer(tokenizer)
        written = [
            write_shard(folder, "000001-test", f"part-{n}.parquet", _shard(rows, True, n)) for n in range(shards)
        ]
        snapshot = StoredSnapshot(
            folder="x",
            digest="s" * 64,
            rows=rows * shards,
            classes=(),
            pixels=PixelConfig(image_size=SIDE),
            seed=0,
            preprocessing="p" * 64,
        )
        files = TokenizerFiles(tokenizer, "t" * 64)
        options = {"attempt": "000001-test", "config": CodesConfig(), "previous": None}
        commit_dataset(folder, SCHEMA_256, written, [], snapshot, files, **options)
        started = time.monotonic()
        table = read_codes(folder, TRAIN, Path(root) / "cache")
        unpacked = time.monotonic()
        for start in range(0, 4 * len(table), 256):
            table.batch(batch_rows(start, 256, 0, len(table)))
        drawn = time.monotonic()
    return {
        "unpacked_images_per_second_per_core": round(rows * shards / (unpacked - started)),
        "drawn_images_per_second_per_core": round(4 * len(table) / (drawn - unpacked)),
    }


if __name__ == "__main__":
    main()
