"""How the code reads, in numbers: name length, names of several words, comments, duplicate public names, longest file,
imports that point upwards.

    python -m benchmarks.readability [ROOT]

Counts `components/` and `pipeline/` below ROOT (default: this project), so that two checkouts can be compared.
"""

import ast
import io
import json
import statistics
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("components", "pipeline")
LAYERS = (
    ("pipeline.cli", "pipeline.verbs", "pipeline.__main__"),
    ("pipeline.definitions", "pipeline.assets"),
    ("pipeline",),
    ("components.evaluation",),
    ("components.generator",),
    ("components.priors",),
    ("components.codes",),
    ("components.classifier",),
    ("components.tokenizer",),
    ("components.images",),
    ("components.training",),
    ("components.cluster",),
    ("components.tracking",),
    ("components.serving", "components.workspace"),
    ("components.store",),
    ("components",),
)
"""Top first: a module belongs to the first layer that names it or a package around it."""


def main(root: Path = PROJECT) -> None:
    """Print the figures as JSON."""
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    trees = {path: ast.parse(path.read_text()) for path in files}
    names = sorted({name for tree in trees.values() for name in defined_names(tree)})
    lines = sum(len(path.read_text().splitlines()) for path in files)
    duplicates = {name: places for name, places in public_names(trees, root).items() if len(places) > 1}
    longest = max(files, key=lambda path: len(path.read_text().splitlines()))
    figures = {
        "files": len(files),
        "lines": lines,
        "names": len(names),
        "characters_per_name": round(statistics.mean(map(len, names)), 1),
        "several_words_percent": round(
            100 * statistics.mean("_" in name.strip("_") or is_camel(name) for name in names)
        ),
        "comments_per_hundred_lines": round(100 * sum(comments(path) for path in files) / lines, 1),
        "duplicate_public_names": len(duplicates),
        "longest_file": f"{longest.relative_to(root)} ({len(longest.read_text().splitlines())} lines)",
        "upward_imports": len(list(upward_imports(trees, root))),
    }
    print(json.dumps(figures, indent=1))
    for name, places in sorted(duplicates.items()):
        print(f"  {name}: {', '.join(places)}", file=sys.stderr)
    for line in upward_imports(trees, root):
        print(f"  {line}", file=sys.stderr)


def defined_names(tree: ast.AST) -> Iterator[str]:
    """Every name that the code gives: functions, classes, arguments, variables, attributes that are assigned."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def is_camel(name: str) -> bool:
    """Whether a class's name is made of several words."""
    return sum(letter.isupper() for letter in name) > 1 and not name.isupper()


def comments(path: Path) -> int:
    """Comments of a file, docstrings not counted."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


def public_names(trees: dict[Path, ast.Module], root: Path) -> dict[str, list[str]]:
    """Module-level functions, classes and constants without a leading underscore, with the modules that define each."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees.items():
        for node in tree.body:
            targets = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                targets = [node.name]
            elif isinstance(node, ast.Assign):
                targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                targets = [node.target.id]
            for name in targets:
                if not name.startswith("_"):
                    found[name].append(module_of(path, root))
    return found


def module_of(path: Path, root: Path) -> str:
    """Dotted name of the module in a file."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> int:
    """Number of the layer of a module, 0 at the top."""
    return next(
        number
        for number, packages in enumerate(LAYERS)
        if any(module == package or module.startswith(f"{package}.") for package in packages)
    )


def upward_imports(trees: dict[Path, ast.Module], root: Path) -> Iterator[str]:
    """Imports of a higher layer, wherever they stand in the file."""
    modules = {module_of(path, root) for path in trees}
    for path, tree in trees.items():
        importer = module_of(path, root)
        for node in ast.walk(tree):
            targets = []
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [each if each in modules else node.module for each in whole]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            for target in sorted(set(targets)):
                if target.startswith(PACKAGES) and layer_of(target) < layer_of(importer):
                    yield f"{importer} -> {target}"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
