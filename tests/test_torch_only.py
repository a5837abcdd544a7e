"""The model files work where only torch is installed, as in a serving container."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACT = next(
    contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["name"].startswith("Model files")
)
PROGRAM = """
import sys
for name in {forbidden}:
    sys.modules.setdefault(name, None)  # from here on, importing it fails
import importlib, torch
for name in {modules}:
    importlib.import_module(name)
from components.generator.ancestral import Generator
from components.generator.rejection import generate_samples
from components.classifier.config import ClassifierArchitecture
from components.classifier.model import Classifier
from components.priors.conditioning import MapSpec
from components.priors.config import PriorArchitecture
from components.priors.model import Prior
from components.tokenizer.config import LevelConfig, VQVAEArchitecture
from components.tokenizer.model import Tokenizer
levels = tuple(LevelConfig(name=name, stride=stride, codebook_size=8) for name, stride in (("top", 8), ("bottom", 4)))
tokenizer = Tokenizer(VQVAEArchitecture(levels=levels, hidden=8, residual_hidden=4), channels=1)
size = PriorArchitecture(hidden=8, residual_hidden=8, layers=2, filter_size=3, attention_layers=1)
priors = [Prior(size, shape=(s, s), codebook_size=8, classes=2, above=above)
          for s, above in ((2, ()), (4, (MapSpec(2, 2, 8),)))]
classifier = Classifier(ClassifierArchitecture(hidden=4), channels=1, classes=2)
generator = Generator(tokenizer, priors, classifier, ("no", "yes"))
print(tuple(generate_samples(generator, classes=[1], count=2, seed=0, keep=0.5).pixels.shape))
"""


@pytest.mark.slow
def test_model_files_import_and_sample_with_only_torch_installed():
    forbidden = [name for name in CONTRACT["forbidden_modules"] if name != "numpy"]  # torch itself may look for it
    program = PROGRAM.format(forbidden=forbidden, modules=CONTRACT["source_modules"])
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "(2, 16, 16, 1)"), done.stderr
