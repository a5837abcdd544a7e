"""What the pages say is true: the tree is the one on disk, links, commands, targets, paths and messages exist."""

import ast
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from components.errors import ExitCode
from pipeline.cli import build_parser
from pipeline.config_files import preset_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "infra/README.md", "benchmarks/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
README, ARCHITECTURE, OPERATIONS = (TEXTS[page] for page in ("README.md", "docs/architecture.md", "docs/operations.md"))
SHOWN_AS_FOLDERS = ("tests/", "docs/images/", "benchmarks/results/")
"""Folders whose files the tree does not name one by one."""
TERMS = """artifact fingerprint snapshot shard wave lease level code_map step stage update codebook code tokenizer prior
generator manifest gate memo""".replace("code_map", "code-map").split()


# --- results ----------------------------------------------------------------------------------------------------------


def test_the_results_in_the_readme_are_what_the_command_prints_of_the_stored_card():
    from components.evaluation.card import markdown_table

    card = json.loads((ROOT / "benchmarks" / "results" / "digits.json").read_text())
    (shown,) = re.findall(r"<!-- results -->\n(.*?)\n<!-- end of results -->", README, re.DOTALL)
    assert shown == markdown_table(card)


# --- the tree ---------------------------------------------------------------------------------------------------------


def section(text: str, heading: str) -> str:
    """Content below `## heading`, up to the next heading of that depth."""
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def tree_of(text: str) -> dict[str, str]:
    """Path -> clause of every line of the tree."""
    (block,) = re.findall(r"```text\n(.*?)```", section(text, "The tree"), re.DOTALL)
    clauses, folders = {}, []
    for line in block.splitlines():
        indent, name, clause = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()
        folders = folders[: len(indent) // 2]
        clauses["".join([*folders, name])] = clause
        if name.endswith("/"):
            folders.append(name)
    return clauses


def on_disk() -> set[str]:
    """Files that belong to the project."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {path for path in listed if (ROOT / path).exists()}


def test_the_tree_is_the_one_on_disk():
    tree = tree_of(ARCHITECTURE)
    files = {path for path in tree if not path.endswith("/") and "*" not in path}
    real = {path for path in on_disk() if not path.endswith("__init__.py") and not path.startswith(SHOWN_AS_FOLDERS)}
    assert {path for path in files if not path.startswith(SHOWN_AS_FOLDERS)} == real
    assert all((ROOT / path).is_dir() for path in tree if path.endswith("/"))


def test_every_folder_of_tests_is_in_the_tree():
    folders = {f"tests/{path.split('/')[1]}/" for path in on_disk() if re.match(r"tests/\w+/", path)}
    assert folders == {path for path in tree_of(ARCHITECTURE) if re.fullmatch(r"tests/\w+/", path)}


def test_every_file_has_its_clause():
    assert [path for path, clause in tree_of(ARCHITECTURE).items() if not clause and not path.endswith("/")] == []


# --- what pages refer to ----------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", TEXTS[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_backticks_exist(page):
    paths = re.findall(r"`((?:components|pipeline|tests|docs|infra|benchmarks)/[\w./-]+)`", TEXTS[page])
    assert [path for path in paths if not (ROOT / path).exists()] == []


def commands() -> list[str]:
    """Every command line of this project on any page."""
    return sorted({each for text in TEXTS.values() for each in re.findall(r"python -m pipeline ([a-z][^`\n]*)", text)})


@pytest.mark.parametrize("command", commands())
def test_commands_are_ones_that_the_pipeline_takes(command):
    build_parser().parse_args(shlex.split(command, comments=True))


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([\w-]+)", TEXTS[page], re.MULTILINE)) <= targets


# --- what pages list --------------------------------------------------------------------------------------------------


def test_every_preset_is_shown():
    assert set(re.findall(r"^\| `(\w+)` \| ", README, re.MULTILINE)) >= set(preset_names())


def test_exit_codes_are_those_of_the_error_tree():
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section(OPERATIONS, "Exit codes"), re.MULTILINE)
    assert rows == [(str(code.value), code.meaning) for code in ExitCode]


def test_every_term_is_defined():
    terms = re.findall(r"^\| \*\*([\w -]+)\*\* \|", section(ARCHITECTURE, "Glossary"), re.MULTILINE)
    assert {term.replace(" ", "-") for term in terms} >= set(TERMS)
    assert len(terms) == len(set(terms))


def test_layers_are_those_that_the_linter_holds():
    (block,) = re.findall(r"```text\n(.*?)```", section(ARCHITECTURE, "The layers"), re.DOTALL)
    shown = {part.split(" ", 1)[0]: [line[12:38].strip() for line in part.splitlines()] for part in block.split("\n\n")}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = {tuple(each["containers"]): each["layers"] for each in contracts if "containers" in each}
    assert shown == {name: held[(name,)] for name in ("pipeline", "components")}


def raised_texts() -> list[str]:
    """Every string of the source; what an f-string inserts becomes a line break."""
    files = [path for folder in ("components", "pipeline") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    joined = [
        "".join(getattr(part, "value", "\n") if isinstance(part, ast.Constant) else "\n" for part in each.values)
        for each in formatted
    ]
    return joined + [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_every_message_of_the_troubleshooting_table_is_raised():
    messages = re.findall(r"^\| `(.*?)` \|", section(OPERATIONS, "Troubleshooting"), re.MULTILINE)
    pieces = {piece.strip() for message in messages for piece in re.split(r"\.\.\.|<\w+>|\b[NM]\b", message)}
    texts = raised_texts()
    assert len(messages) >= 10
    assert [piece for piece in pieces if len(piece) > 3 and not any(piece in text for text in texts)] == []


def test_the_orchestrator_recipe_is_code_that_imports():
    (code,) = re.findall(r"```python\n(.*?)```", TEXTS["CONTRIBUTING.md"], re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    assert callable(names["materialise"])


def test_no_figure_is_missing():
    assert all("<!-- figure" not in text for text in TEXTS.values())
