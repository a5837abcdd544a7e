"""Listing and snapshots take the same memory for any number of images, and one more folder changes few parts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_memory_depends_on_the_rows_per_run_and_not_on_all_rows():
    """Two listings with their snapshots in separate processes, the second with five times as many images."""
    few, many = (_measure(images) for images in (100_000, 500_000))
    grown = many["snapshot_peak_bytes"] - few["snapshot_peak_bytes"]
    assert grown < 60_000_000, (few, many)  # 400,000 rows take 100 MB as a table, and several times that while sorted
    assert many["changed_parts"] <= 2 and many["parts"] >= 5


def _measure(images: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.growth", "--one", str(images), "--rows-per-run", str(1 << 15)]
    output = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])
