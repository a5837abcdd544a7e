"""`sample` and `reconstruct`: using a finished model, from the registry or from the newest run of a config."""

import argparse
import contextlib
import difflib
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from components.artifacts import Artifact
from components.errors import MissingArtifact, StorageError, UsageError
from components.generator.ancestral import Generator, Samples
from components.generator.rejection import best_indices, draws_needed, sample_seeds
from components.images.config import ImagesConfig
from components.images.decode import UnusableImage, decode_image
from components.pictures import Pixels, reconstruction_grid, sample_grid, to_png
from components.priors.choice import AS_FITTED, SamplingConfig
from components.progress import Progress
from components.store import commits, objects
from components.store.weights import TokenizerDescription, describe_tokenizer, load_generator, load_tokenizer
from components.tokenizer.model import Tokenizer, to_images, to_pixels
from components.tracking.runs import Tracker, has_been_used, tracking_uri, without_password
from pipeline.config import load_config, preset_names
from pipeline.session import Session, look_up_memo

IMAGES_PER_PASS = 64
"""Images drawn or encoded at a time."""
MAX_IMAGES_SHOWN = 100
"""Images in the side by side picture; every image gets its line of figures."""


@dataclass(frozen=True)
class FoundModel:
    """A model on this machine's disk."""

    title: str
    """What it is called in messages."""
    parts: dict[str, Path]
    """Folders by part: 'tokenizer', and for a generator 'classifier' and 'prior_<level>' too."""
    artifact: Artifact
    """The step's artifact that it came from."""


# --- sample -----------------------------------------------------------------------------------------------------------


def sample_model(options: argparse.Namespace) -> int:
    """Draw `count` images of each class; write a grid and every image. The same arguments give the same images."""
    with _usage():
        draws_needed(options.count, 1.0 if options.keep is None else options.keep)
        sample_seeds(options.seed, 0, 1)
        asked = {name: value for name in asdict(AS_FITTED) if (value := getattr(options, name)) is not None}
        SamplingConfig(**asked)
    with find_model(options.model, options.overrides, options.state, "generator") as found:
        facts = found.artifact.facts
        choice = SamplingConfig(**{name: facts[name] for name in asdict(AS_FITTED)} | asked)
        keep = float(facts["keep"] or 1) if options.keep is None else options.keep
        generator = load_generator(found.parts).to(_device())
        kept = _upper_codes(options.like, found, generator.tokenizer) if options.like else ()
        classes = _classes(options.classes, generator.classes)
        print(
            f"{found.title}: {options.count} images of {len(classes)} classes, seed {options.seed}, "
            f"{', '.join(f'{name} {value:g}' for name, value in asdict(choice).items())}, keep {keep:g}"
        )
        with _usage():
            samples = _draw(
                generator, classes, count=options.count, seed=options.seed, choice=choice, keep=keep, given=kept
            )
    for path in _write(
        samples, [generator.classes[label] for label in classes], options.count, options.seed, Path(options.out)
    ):
        print(path)
    return 0


def _classes(asked: str, known: Sequence[str]) -> list[int]:
    """Numbers of the classes named in `asked`, all of them when it is empty."""
    names = [name.strip() for name in asked.split(",") if name.strip()] or list(known)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean '{close[0]}'?" if close else ""
            shown = ", ".join(known[:40]) + (f", ... ({len(known)} in all)" if len(known) > 40 else "")
            raise UsageError(f"--classes must name classes of the model ({shown}), got '{name}'{hint}")
    return [known.index(name) for name in dict.fromkeys(names)]


def _upper_codes(place: str, found: FoundModel, tokenizer: Tokenizer) -> tuple[torch.Tensor, ...]:
    """Code maps (1, h, w) of the image file `place`, of all levels but the lowest."""
    described = describe_tokenizer(found.parts["tokenizer"])
    if len(described.settings.levels) == 1:
        raise UsageError("--like keeps all levels but the lowest, and this model has no other")
    names, pixels = _read(_files(place), _as_fitted(described, place))
    if len(names) != 1:
        raise UsageError(f"--like must name one image file, found {len(names)} readable images at {place}")
    with torch.no_grad():
        return tokenizer.encode(to_images(torch.from_numpy(pixels)).to(_device()))[:-1]


def _draw(
    generator: Generator,
    classes: Sequence[int],
    *,
    count: int,
    seed: int,
    choice: SamplingConfig,
    keep: float,
    given: Sequence[torch.Tensor],
) -> Samples:
    """As components/generator/rejection.py does it, and as the served model does, telling how far it is."""
    draws = draws_needed(count, keep)
    labels = torch.tensor(classes).repeat_interleave(draws)
    seeds = torch.cat([sample_seeds(seed, label, draws) for label in classes])
    progress, started, parts = Progress(), time.monotonic(), []
    if len(labels) > IMAGES_PER_PASS:
        progress.update("sampling", done=0, total=len(labels), unit="images")
    for some, own in zip(labels.split(IMAGES_PER_PASS), seeds.split(IMAGES_PER_PASS), strict=True):
        kept = [level.expand(len(some), -1, -1) for level in given]
        parts.append(generator.sample(some, own, choice=choice, batch=IMAGES_PER_PASS, given=kept).cpu())
        done = sum(len(part) for part in parts)
        if len(labels) > IMAGES_PER_PASS:
            progress.update(
                "sampling", done=done, total=len(labels), unit="images", rate=done / (time.monotonic() - started)
            )
    progress.finish("sampling")
    pixels, probability = torch.cat([part.pixels for part in parts]), torch.cat([part.probability for part in parts])
    maps = tuple(torch.cat(level) for level in zip(*(part.maps for part in parts), strict=True))
    chosen = best_indices(probability.view(len(classes), draws), count) + torch.arange(len(classes))[:, None] * draws
    return Samples(pixels, labels, seeds, maps, probability).take(chosen.flatten())


def _write(samples: Samples, names: Sequence[str], count: int, seed: int, folder: Path) -> Iterator[Path]:
    """grid.png, then one PNG an image."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Pixels] = {
        name: samples.pixels[place * count : (place + 1) * count].numpy() for place, name in enumerate(names)
    }
    grid = folder / "grid.png"
    grid.write_bytes(sample_grid(rows))
    yield grid
    for name, row in rows.items():
        for index, pixels in enumerate(row):
            path = folder / f"{name.replace(os.sep, '_')}-{index}-seed{seed}.png"
            path.write_bytes(to_png(pixels))
            yield path


# --- reconstruct ------------------------------------------------------------------------------------------------------


def reconstruct_images(options: argparse.Namespace) -> int:
    """Encode and decode image files; write originals above reconstructions and say how close they are."""
    files = _files(options.images)
    with find_model(options.model, options.overrides, options.state, "tokenizer") as found:
        described = describe_tokenizer(found.parts["tokenizer"])
        model = load_tokenizer(found.parts["tokenizer"]).to(_device())
    config = _as_fitted(described, options.images)
    names, pixels = _read(files, config)
    if not names:
        raise UsageError(f"{options.images} must hold at least one readable image, got none of {len(files)} files")
    print(f"{found.title}: {len(names)} images at {config.image_size}x{config.image_size}")
    decoded = []
    with torch.no_grad():
        for some in torch.from_numpy(pixels).split(IMAGES_PER_PASS):
            images = to_images(some).to(_device())
            decoded.append(to_pixels(model.decode(model.encode(images))).cpu().numpy())
    for name, original, reconstruction in zip(names, pixels, np.concatenate(decoded), strict=True):
        print(f"  {psnr(original, reconstruction):5.1f} dB  {name}")
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(reconstruction_grid(pixels[:MAX_IMAGES_SHOWN], np.concatenate(decoded)[:MAX_IMAGES_SHOWN]))
    print(f"{out}" + (f" (the first {MAX_IMAGES_SHOWN})" if len(names) > MAX_IMAGES_SHOWN else ""))
    return 0


def psnr(original: Pixels, reconstruction: Pixels) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit images; infinite when they are equal."""
    error = float(np.square(original.astype(np.float64) - reconstruction).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def _as_fitted(described: TokenizerDescription, place: str) -> ImagesConfig:
    """How images at `place` are read for a tokenizer."""
    channels: Literal[1, 3] = 1 if described.channels == 1 else 3
    return ImagesConfig(source="folder", uri=place, image_size=described.image_size, channels=channels, upscale=True)


def _files(place: str) -> list[tuple[str, str]]:
    """(name, URI) of the file `place`, or of every visible file below the folder `place`."""
    uri = objects.absolute(place)
    listed = [
        (file.path, file.uri)
        for file in objects.list_objects(uri)
        if not any(part.startswith(".") for part in file.path.split("/"))
    ]
    if listed:
        return listed
    if objects.is_local(uri) and not Path(uri).is_file():
        found = "an empty folder" if Path(uri).is_dir() else "nothing"
        raise UsageError(f"{place} must be an image file or a folder with image files, found {found}")
    return [(uri.rsplit("/", 1)[-1], uri)]


def _read(files: Sequence[tuple[str, str]], config: ImagesConfig) -> tuple[list[str], Pixels]:
    """Names and pixels of the images that can be read; the others are named with the reason."""
    names, pixels = [], []
    for name, uri in files:
        try:
            pixels.append(decode_image(objects.read_bytes(uri), config))
            names.append(name)
        except UnusableImage as error:
            print(f"  skipped  {name}: {error}")
        except (StorageError, FileNotFoundError) as error:
            print(f"  skipped  {name}: {error}")
    return names, np.stack(pixels) if pixels else np.empty(
        (0, config.image_size, config.image_size, config.channels), np.uint8
    )


# --- finding a model --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def find_model(source: str, overrides: Sequence[str], state: str, kind: str) -> Iterator[FoundModel]:
    """The `kind` ('tokenizer' or 'generator') that `source` names; downloads live as long as the body."""
    if source in preset_names() or source.endswith((".yaml", ".yml")):
        yield _of_config(source, overrides, kind)
        return
    if overrides:
        raise UsageError(
            "--set overrides settings of a config: name a preset or a YAML file instead of a registered model"
        )
    tracker = open_registry(state)
    model = tracker.model(source)
    artifact = tracker.made_by(model.run_id)
    if artifact.kind != kind:
        raise UsageError(f"{model.uri} is a {artifact.kind}, a {kind} is needed")
    with tempfile.TemporaryDirectory() as folder:
        yield FoundModel(model.uri, tracker.model_parts(model, Path(folder)), artifact)


def _of_config(source: str, overrides: Sequence[str], kind: str) -> FoundModel:
    config = load_config(source, overrides)
    memo = look_up_memo(config)
    if memo is None:
        raise MissingArtifact(f"nothing has run yet with {source}: python -m pipeline run {source}")
    session = Session(config, memo=memo)
    artifact = session.artifact(kind)
    folder = commits.local_copy(artifact.uri)
    parts = {"tokenizer": folder} if kind == "tokenizer" else {part: folder / part for part in memo.steps[kind].inputs}
    return FoundModel(f"{kind} {artifact.digest[:12]} of {source}", parts, artifact)


def open_registry(state: str) -> Tracker:
    """MLflow, to read from its registry; makes nothing. Raises UsageError where nothing has run yet."""
    uri = tracking_uri(state)
    if not has_been_used(uri):
        raise UsageError(
            f"there is no registry at {without_password(uri)}: run the pipeline first, or give the folder of its state "
            "by --state"
        )
    return Tracker(uri=uri, name="registry", state=state)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    """What is wrong with an argument is the caller's to mend."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None
