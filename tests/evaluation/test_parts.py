"""Parts of a set: written once, found again, read at any positions."""

import numpy as np
import pytest
import torch

from components.evaluation import parts
from components.evaluation.parts import (
    Part,
    finished_parts,
    join_rows,
    part_ranges,
    read_rows,
    read_tensors,
    write_part,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A set of 7 images in parts of 3."""
    monkeypatch.setattr(parts, "ROWS_PER_PART", 3)
    for number, rows in enumerate(part_ranges(7)):
        values = torch.tensor(list(rows))
        write_part(str(tmp_path / "set"), number, Part({"labels": values}, {"features": values[:, None] * 10.0}))
    return str(tmp_path / "set")


def test_rows_join_in_the_order_of_the_parts(folder):
    read = {number: read_rows(folder, number) for number in (2, 0, 1)}
    assert join_rows(read)["labels"].tolist() == list(range(7)) and finished_parts(folder) == {0, 1, 2}


def test_tensors_are_read_at_any_positions_in_their_order(folder):
    found = read_tensors(folder, np.array([6, 0, 4, 4]), ["features", "missing"])
    assert found["features"][:, 0].tolist() == [60, 0, 40, 40] and "missing" not in found


def test_only_parts_with_a_position_are_read(folder, tmp_path):
    (tmp_path / "set" / "00001.safetensors").unlink()
    assert read_tensors(folder, np.array([6, 1]), ["features"])["features"][:, 0].tolist() == [60, 10]


def test_a_part_without_rows_is_not_finished(folder, tmp_path):
    (tmp_path / "set" / "00001.rows.safetensors").unlink()  # as after a kill between the two files
    assert finished_parts(folder) == {0, 2} and finished_parts(str(tmp_path / "nothing")) == set()
