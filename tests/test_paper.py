"""docs/paper.md against the project: what it names exists, and code and pages cite the algorithms' lines as it does."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAPER = (ROOT / "docs" / "paper.md").read_text()
LINES = r"lines? (\d+(?:(?:-|, | and )\d+)*)"
CITATION = re.compile(rf"(?:Algorithm|stage) ([12]),\s+{LINES}")
"""Algorithm 2, line 8 / Algorithm 2, lines 10 and 14 / stage 2, lines 1-7; may be broken across two lines of text."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = sorted(path for folder in ("components", "pipeline") for path in (ROOT / folder).rglob("*.py"))


class Row(NamedTuple):
    """A line, or a range of lines, of one algorithm, and the files that compute it."""

    algorithm: int
    lines: frozenset[int]
    files: tuple[str, ...]


def numbers(text: str) -> frozenset[int]:
    """`1-7` or `8 and 9` as numbers."""
    spans = [[int(end) for end in span.split("-")] for span in re.split(r", | and ", text)]
    return frozenset(number for span in spans for number in range(span[0], span[-1] + 1))


def table_rows() -> list[list[str]]:
    """The cells of every table row of the page."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in PAPER.splitlines()
        if line.startswith("| ") and not line.startswith(("| paper", "| measure"))
    ]


def quoted(cell: str, pattern: str) -> list[str]:
    """Names in backquotes that match `pattern` whole."""
    return [name for name in re.findall(r"`([^`]+)`", cell) if re.fullmatch(pattern, name)]


ROWS = [
    Row(int(number), numbers(lines), tuple(quoted(cells[1], r"\S+\.py")))
    for cells in table_rows()
    for number, lines in re.findall(rf"^Algorithm ([12]), {LINES}:", cells[0])
]


def covers(rows: list[Row], lines: frozenset[int]) -> bool:
    """Whether `lines` are exactly those of some of `rows`."""
    return lines == frozenset().union(*(row.lines for row in rows if row.lines <= lines))


def uncovered(path: Path, rows: list[Row]) -> list[str]:
    """Citations in `path` that do not name whole rows."""
    text = re.sub(r"\n\s*(?:#\s*)?", " ", path.read_text())
    return [
        citation.group()
        for citation in CITATION.finditer(text)
        if not covers([row for row in rows if row.algorithm == int(citation[1])], numbers(citation[2]))
    ]


def defined(path: Path) -> set[str]:
    """Functions, classes and methods of a module, methods as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_every_line_of_both_algorithms_has_its_row():
    listed = {
        number: sorted(line for row in ROWS if row.algorithm == number for line in row.lines) for number in (1, 2)
    }
    assert listed == {1: list(range(1, 7)), 2: list(range(1, 15))}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_cite_the_lines_that_the_page_lists(path):
    assert uncovered(path, ROWS) == []


@pytest.mark.parametrize("room", ["tokenizer", "codes", "priors", "generator", "training"])
def test_a_component_cites_only_the_lines_that_it_computes(room):
    rows = [row for row in ROWS if any(name.startswith(f"components/{room}/") for name in row.files)]
    files = sorted((ROOT / "components" / room).rglob("*.py"))
    assert [(path.name, wrong) for path in files for wrong in uncovered(path, rows)] == []


def test_all_other_code_cites_the_lines_that_the_page_lists():
    assert [(path.name, wrong) for path in SOURCES for wrong in uncovered(path, ROWS)] == []


def test_lines_that_the_page_does_not_list_are_noticed(tmp_path):
    for wrong in ("Algorithm 2, lines 1-6", "Algorithm 2, lines 7-9", "Algorithm 1,\n# line 7", "stage 2, line 15"):
        (tmp_path / "module.py").write_text(f"# {wrong}: x\n# Algorithm 2, lines 10 and 14\n")
        assert len(uncovered(tmp_path / "module.py", ROWS)) == 1


def test_every_file_that_the_page_names_exists():
    paths = quoted(PAPER, r"(?:components|pipeline|tests)/\S+")
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_every_test_that_the_page_names_exists():
    source = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = quoted(PAPER, r"test_\w+")
    assert names and [name for name in names if f"def {name}(" not in source] == []


def test_every_name_that_the_page_gives_is_defined_in_a_file_beside_it():
    for cells in table_rows():
        names = quoted(cells[1], r"[A-Za-z_]+(?:\.[a-z_]+)?(?<!\.py)")
        files = quoted(cells[1], r"\S+\.py")
        assert set(names) <= {name for path in files for name in defined(ROOT / path)}, cells[1]
