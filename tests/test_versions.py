"""The project has one version number, and the tools that check a change run the same commands everywhere."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from tests.infra.documents import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
JOBS = yaml.safe_load(WORKFLOW.read_text())["jobs"]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
IMAGE_FILES = ["Dockerfile", "ray_cluster.yaml", "infra/compose.yaml", ".github/workflows/ci.yml"]
IMAGE_FILES += [str(path.relative_to(ROOT)) for path in (ROOT / "infra" / "kubernetes").glob("*.yaml")]


def make_recipes() -> dict[str, list[str]]:
    """Commands of each make target, with make's own variables replaced by their defaults."""
    text = (ROOT / "Makefile").read_text()
    variables = dict(re.findall(r"^(\w+)\s*[?:]?=\s*(.*)$", text, re.MULTILINE))
    recipes = re.findall(r"^([\w-]+):[^=\n]*\n((?:\t.*\n?)*)", text, re.MULTILINE)
    lines = {name: [line.lstrip("\t@") for line in body.splitlines()] for name, body in recipes}
    return {
        name: [re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]].strip(), line) for line in body]
        for name, body in lines.items()
    }


def workflow_commands() -> list[str]:
    return [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]


# --- one version ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", IMAGE_FILES)
def test_every_tag_of_our_image_is_the_project_s_version(path):
    assert set(re.findall(r"\bvqvae2:([\w.-]+)", (ROOT / path).read_text())) <= {VERSION}


def test_our_image_is_tagged_where_it_is_built_and_started():
    tagged = [path for path in IMAGE_FILES if f"vqvae2:{VERSION}" in (ROOT / path).read_text()]
    assert {"Dockerfile", "ray_cluster.yaml", "infra/compose.yaml", ".github/workflows/ci.yml"} < set(tagged)
    kustomization = yaml.safe_load((ROOT / "infra" / "kubernetes" / "kustomization.yaml").read_text())
    assert [image["newTag"] for image in kustomization["images"]] == [VERSION]


def test_the_newest_heading_of_the_changelog_is_the_project_s_version():
    headings = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == VERSION
    assert headings == sorted(headings, key=lambda version: [int(part) for part in version.split(".")], reverse=True)


# --- one set of commands ----------------------------------------------------------------------------------------------


def test_the_workflow_follows_its_schema(tmp_path):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    assert subprocess.run([*check, str(WORKFLOW)], capture_output=True).returncode == 0
    (tmp_path / "ci.yml").write_text(WORKFLOW.read_text().replace("runs-on:", "run-on:"))
    assert subprocess.run([*check, str(tmp_path / "ci.yml")], capture_output=True).returncode == 1


def test_the_workflow_calls_make_targets_that_exist():
    called = [command.split()[1] for command in workflow_commands() if command.startswith("make ")]
    assert called == ["lint", "test-quick", "test-slow", "test-ray", "test-services"]
    assert set(called) <= set(make_recipes())


def test_the_workflow_decides_nothing_itself():
    other = [command for command in workflow_commands() if not re.fullmatch(r"make [\w-]+", command)]
    allowed = ("bash tests/services/install.sh", "sudo bash tests/services/install.sh", "docker build", "docker run")
    assert all(command.startswith(allowed) and "\n" not in command for command in other)
    assert not any("if" in step for job in JOBS.values() for step in job["steps"])


def test_make_test_runs_every_set_that_the_workflow_runs():
    rule = re.search(r"^test:.*\n(?:\t.*\n)*", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule and all(
        target in rule[0] for target in ("lint", "test-quick", "test-slow", "test-ray", "test-services")
    )


def test_the_hooks_are_the_commands_of_make_lint():
    assert [hook["entry"] for hook in HOOKS] == make_recipes()["lint"]
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in HOOKS)


def test_pre_commit_accepts_its_config():
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    assert subprocess.run(command, capture_output=True).returncode == 0
