"""The snippets of docs/formats.md, run as they stand."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.parametrize("library", ["pandas", "numpy, through pyarrow"])
def test_a_snippet_reads_the_codes_without_this_project(codes, tmp_path, library):
    codes.write(tmp_path)
    snippet = re.search(rf"^{library}\n```python\n(.*?)```", PAGE.read_text(), re.S | re.M)
    assert snippet is not None
    names = {"folder": str(tmp_path)}
    exec(snippet[1].replace("4, 4)", "2, 3)"), names)
    assert (names["top"] == codes.maps[0]).all()
