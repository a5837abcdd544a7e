"""`sample`: images drawn from a generator, as a grid and as single files."""

import argparse
import contextlib
import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from components.errors import UsageError
from components.generator.facts import GeneratorFacts
from components.generator.rejection import draws_needed, generate_samples, sample_seeds
from components.generator.samples import Samples, no_report
from components.generator.sampling_progress import show_sampling
from components.generator.stored import load_generator
from components.images.tensors import to_images
from components.pictures import Pixels, sample_grid, to_png
from components.priors.config import AS_FITTED, SamplingConfig
from components.progress import Progress
from components.tokenizer.model import Tokenizer
from components.tokenizer.stored import describe_tokenizer
from pipeline.models import FoundModel, find_model
from pipeline.verbs.image_files import (
    check_outside_images,
    list_image_files,
    model_device,
    pixel_config_of,
    read_image_files,
)

DRAWS_PER_CHUNK = 64
"""Images drawn at a time; a larger draw shows its progress."""
CLASSES_IN_MESSAGE = 40
"""Largest number of class names that an error lists."""


def sample_model(options: argparse.Namespace) -> int:
    """Draw `count` images per class; write a grid and every image. The same arguments give the same images."""
    with _bad_arguments():
        draws_needed(options.count, 1.0 if options.keep is None else options.keep)
        sample_seeds(options.seed, 0, 1)
        chosen = {name: value for name in asdict(AS_FITTED) if (value := getattr(options, name)) is not None}
        SamplingConfig(**chosen)  # checks the values before the model is loaded
    check_outside_images(options.model, options.overrides, options.out)
    with find_model(options.model, options.overrides, options.state, "generator") as model:
        defaults = model.artifact.read(GeneratorFacts)
        sampling = replace(defaults.sampling, **chosen)
        keep = defaults.keep if options.keep is None else options.keep
        generator = load_generator(model.parts).to(model_device())
        upper_codes = _upper_codes(options.like, model, generator.tokenizer) if options.like else ()
        classes = _class_numbers(options.classes, generator.classes)
        if keep < 1 and generator.classifier is None:
            print(f"note: this model has no classifier to reject samples by: all are kept, keep {keep:g} is ignored")
            keep = 1.0
        of_classes = f" of {len(classes)} classes" if generator.classes else ", without classes"
        print(
            f"{model.title}: {options.count} images{of_classes}, seed {options.seed}, "
            f"{', '.join(f'{name} {value:g}' for name, value in asdict(sampling).items())}, keep {keep:g}"
        )
        shows = len(classes) * draws_needed(options.count, keep) > DRAWS_PER_CHUNK
        with _bad_arguments():
            samples = generate_samples(
                generator,
                classes=classes,
                count=options.count,
                seed=options.seed,
                sampling=sampling,
                keep=keep,
                batch=DRAWS_PER_CHUNK,
                given=upper_codes,
                report=show_sampling(Progress()) if shows else no_report,
            )
    names = [generator.label_name(label) for label in classes]
    for path in _write(samples, names, options.count, options.seed, Path(options.out)):
        print(path)
    return 0


def _class_numbers(names: str, classes: Sequence[str]) -> list[int]:
    """Numbers of the classes in the comma-separated `names`; of all classes when it is empty. Without classes: [0]."""
    if not classes:
        if names:
            raise UsageError(f"--classes must be left out: this model was fitted without classes, got '{names}'")
        return [0]
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(classes)
    for name in wanted:
        if name not in classes:
            similar = difflib.get_close_matches(name, classes, n=1)
            hint = f": did you mean '{similar[0]}'?" if similar else ""
            more = f", ... ({len(classes)} in all)" if len(classes) > CLASSES_IN_MESSAGE else ""
            listed = ", ".join(classes[:CLASSES_IN_MESSAGE]) + more
            raise UsageError(f"--classes must name classes of the model ({listed}), got '{name}'{hint}")
    return [classes.index(name) for name in dict.fromkeys(wanted)]  # each class once


def _upper_codes(path: str, model: FoundModel, tokenizer: Tokenizer) -> tuple[torch.Tensor, ...]:
    """Code maps int64 (1, h, w) of the image file `path`, of all levels but the lowest."""
    description = describe_tokenizer(model.parts["tokenizer"])
    if len(description.architecture.levels) == 1:
        raise UsageError("--like keeps all levels but the lowest, and this model has only one")
    names, pixels = read_image_files(list_image_files(path), pixel_config_of(description))
    if len(names) != 1:
        raise UsageError(f"--like must name one image file, found {len(names)} readable images at {path}")
    with torch.no_grad():
        return tokenizer.encode(to_images(torch.from_numpy(pixels)).to(model_device()))[:-1]


def _write(samples: Samples, names: Sequence[str], count: int, seed: int, folder: Path) -> Iterator[Path]:
    """Write grid.png, then one PNG per image; yields the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Pixels] = {
        name: samples.pixels[number * count : (number + 1) * count].numpy() for number, name in enumerate(names)
    }
    grid = folder / "grid.png"
    grid.write_bytes(sample_grid(rows))
    yield grid
    for name, row in rows.items():
        for index, pixels in enumerate(row):
            # A class name may contain a path separator; without classes there is no name.
            path = folder / f"{name.replace(os.sep, '_') or 'sample'}-{index}-seed{seed}.png"
            path.write_bytes(to_png(pixels))
            yield path


@contextlib.contextmanager
def _bad_arguments() -> Iterator[None]:
    """Report bad arguments as UsageError."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None
