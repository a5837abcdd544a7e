"""The snippets of docs/formats.md, run unchanged, each with its library."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
LIBRARIES = ("pandas", "polars", "duckdb", "Hugging Face datasets", "numpy, through pyarrow")


def snippet(title: str) -> str:
    """The Python block under the line of the page that matches `title`, a regular expression."""
    match = re.search(rf"^{title}\n+```python\n(.*?)```", PAGE, re.S | re.M)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_snippet_reads_the_codes_without_this_project(codes, tmp_path, monkeypatch, library):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    codes.write(tmp_path / "codes")
    (tmp_path / "codes" / "part-half-written.parquet").write_bytes(b"PAR1")  # no manifest lists it
    names = {"folder": str(tmp_path / "codes")}
    exec(snippet("`folder` is .* lists:"), names)
    exec(snippet(library).replace("4, 4)", "2, 3)"), names)
    ids, top = np.asarray(names["rows"]["id"]), names["top"]
    chosen = [number for number in range(50) if library != "duckdb" or number % 5]
    assert sorted(ids.tolist()) == [number * 2 for number in chosen]
    assert top.shape == (len(chosen), 2, 3) and top.dtype.kind in "ui"
    assert (top == codes.maps[0][ids // 2]).all()


def test_labels_keep_their_nulls(codes, tmp_path):
    codes.write(tmp_path)
    names = {"folder": str(tmp_path)}
    exec(snippet("`folder` is .* lists:") + snippet("pandas").replace("4, 4)", "2, 3)"), names)
    rows = names["rows"].set_index("id")["label"]
    expected = codes.rows["label"].to_pylist()
    assert [None if np.isnan(label) else label for label in rows.loc[[n * 2 for n in range(50)]]] == expected
