"""An environment with torch-fidelity, and what its extractors and its `calculate_metrics` say of real images."""

import fcntl
import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

ROOT = Path(__file__).parents[3]
ENVIRONMENT = ROOT / ".cache" / "fidelity-venv"
PACKAGES = ("torch-fidelity", "torchvision", "timm")
SIDE = 40
"""Of the crops: they are not square multiples of anything, and are enlarged to 299 by the extractors."""


@pytest.fixture(scope="session")
def fidelity_python() -> Path:
    """Python of an environment with torch-fidelity, torchvision and timm on top of this one.

    They are not installed in this one: PyPI's torchvision does not import beside a torch for CPUs, and other packages
    import torchvision wherever it is installed.
    """
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.split("==")[0] in PACKAGES]
    wanted = "\n".join([*pins, sysconfig.get_path("purelib")])
    python, record = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed.txt"
    with open(f"{ENVIRONMENT}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once install one after the other
        if not record.exists() or record.read_text() != wanted:
            run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)])
            (packages,) = ENVIRONMENT.glob("lib/python*/site-packages")
            (packages / "base.pth").write_text(sysconfig.get_path("purelib"))
            run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *pins])
            record.write_text(wanted)
    return python


def run(command: list[str]) -> str:
    """Output of a command in the project's folder; raises with all that it printed when it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Reference:
    """What with_fidelity.py left in a folder."""

    folder: Path
    """inception.pt2, dinov2.pt2, lpips.pt2, real/ and samples/ with PNG files, outputs.npz."""
    metrics: dict[str, float]
    """Of torch-fidelity's calculate_metrics."""


@pytest.fixture(scope="session")
def reference(fidelity_python, tmp_path_factory) -> Reference:
    """Programs exported by the commands from random weights, and torch-fidelity's own figures with these weights."""
    folder = tmp_path_factory.mktemp("fidelity")
    for photo, name, count in zip(load_sample_images().images, ("real", "samples"), (31, 27), strict=True):
        (folder / name).mkdir()
        for number in range(count):
            top, left = 12 * number, 19 * number  # crops of one photo: alike, and none twice
            crop = photo[top % 380 : top % 380 + SIDE, left % 590 : left % 590 + SIDE]
            Image.fromarray(crop).save(folder / name / f"{number:03}.png")
    printed = run([str(fidelity_python), str(Path(__file__).with_name("with_fidelity.py")), str(folder)])
    return Reference(folder, json.loads(printed.splitlines()[-1]))
