"""What the README says is so: its tree is the one on disk, its links and commands exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pipeline.cli import _parser
from pipeline.config import preset_names

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHOWN_AS_FOLDERS = ("tests/", "docs/images/", "benchmarks/results/")
"""Folders whose files the tree does not name one by one."""


def tree_of(text: str) -> dict[str, str]:
    """Path -> clause of every line of the README's tree."""
    (block,) = re.findall(r"## The tree.*?```text\n(.*?)```", text, re.DOTALL)
    found, folders = {}, []
    for line in block.splitlines():
        indent, name, clause = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()
        folders = folders[: len(indent) // 2]
        found["".join([*folders, name])] = clause
        if name.endswith("/"):
            folders.append(name)
    return found


def on_disk() -> set[str]:
    """Files that belong to the project."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {path for path in listed if (ROOT / path).exists()}


def test_the_tree_is_the_one_on_disk():
    told = tree_of(README)
    files = {path for path in told if not path.endswith("/") and "*" not in path}
    real = {path for path in on_disk() if not path.endswith("__init__.py") and not path.startswith(SHOWN_AS_FOLDERS)}
    named = {path for path in files if not path.startswith(SHOWN_AS_FOLDERS)}
    assert named == real
    assert all((ROOT / path).is_dir() for path in told if path.endswith("/"))


def test_every_folder_of_tests_is_in_the_tree():
    folders = {f"tests/{path.split('/')[1]}/" for path in on_disk() if re.match(r"tests/\w+/", path)}
    assert folders == {path for path in tree_of(README) if re.fullmatch(r"tests/\w+/", path)}


def test_every_file_has_its_clause():
    assert [path for path, clause in tree_of(README).items() if not clause and not path.endswith("/")] == []


@pytest.mark.parametrize(
    "page", ["README.md", "infra/README.md", "benchmarks/README.md", *map(str, Path("docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / page).read_text())
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def commands() -> list[str]:
    """Every command line of this project in the README and the docs."""
    pages = [README, *((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page if isinstance(page, str) else page.read_text() for page in pages)
    return sorted(set(re.findall(r"python -m pipeline ([a-z][^`\n]*)", text)))


@pytest.mark.parametrize("command", commands())
def test_commands_are_ones_that_the_pipeline_takes(command):
    _parser().parse_args(shlex.split(command, comments=True))


def test_every_preset_is_shown():
    assert set(re.findall(r"^\| `(\w+)` \| ", README, re.MULTILINE)) >= set(preset_names())


def test_no_figure_is_missing():
    assert "<!-- figure" not in README
