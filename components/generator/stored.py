"""A generator from the folders of its stored parts."""

from collections.abc import Mapping
from pathlib import Path

from components.classifier.stored import describe_classifier, load_rejector
from components.config import require
from components.generator.ancestral import Generator
from components.priors.stored import load_prior
from components.tokenizer.stored import describe_tokenizer, load_tokenizer


def load_generator(folders: Mapping[str, Path]) -> Generator:
    """The generator whose parts are stored in `folders`: 'tokenizer', 'classifier' and one 'prior_<level>' per level.

    The generator has no classifier where the stored one is empty, as for images with fewer than two classes.
    Raises ValueError when a part is missing or broken, or when the parts were not made for each other.
    """
    needed = ["tokenizer", "classifier"]
    if "tokenizer" in folders:
        needed += [f"prior_{level.name}" for level in describe_tokenizer(folders["tokenizer"]).architecture.levels]
    missing = sorted(set(needed) - set(folders))
    require(not missing, f"a generator needs the folders {needed}, got {sorted(folders)} without {missing}")
    priors = [load_prior(folders[name]) for name in needed[2:]]
    class_names = describe_classifier(folders["classifier"]).class_names
    return Generator(load_tokenizer(folders["tokenizer"]), priors, load_rejector(folders["classifier"]), class_names)
