"""`doctor`: checks what is installed, reachable and writable, and says what to do. Starts nothing, never hangs."""

import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from components.errors import ConfigError, ExitCode, WorldError
from components.store.probes import check_writable
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config, local_gpus
from pipeline.surroundings import folder_faults, network_faults

PROJECT_ROOT = Path(__file__).resolve().parents[2]
SERVER_SECONDS = 5.0
"""Seconds in which a server must answer."""
STORE_SECONDS = 30.0
"""Seconds in which the artifact store must answer; its client retries within that time."""
COMFORTABLE_BYTES = {"memory": 3e9, "disk": 5e9, "shm": 1e9}
"""Bytes below which a run of the digits preset may fail."""

GOOD, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    verdict: str
    """ok; note: worth knowing; problem: a run would fail."""
    what: str
    detail: str


def run_doctor(source: str, overrides: Sequence[str]) -> int:
    """Print every finding; returns DONE unless there is a problem."""
    problems = 0
    for finding in _findings(source, overrides):
        problems += finding.verdict == PROBLEM
        print(f"{finding.verdict:<8} {finding.what:<16} {finding.detail}", flush=True)
    print(
        "\neverything that a run needs is available"
        if not problems
        else f"\n{problems} problem{'s' if problems > 1 else ''}: a run would fail"
    )
    return ExitCode.UNREACHABLE if problems else ExitCode.DONE


def _findings(source: str, overrides: Sequence[str]) -> Iterator[Finding]:
    yield Finding(GOOD, "Python", ".".join(map(str, sys.version_info[:3])))  # an older Python cannot parse this file
    yield from _packages()
    yield _devices()
    try:
        config = load_config(source, overrides)
    except ConfigError as error:
        yield Finding(PROBLEM, "config", str(error))
        return
    yield Finding(GOOD, "config", f"{source} is valid")
    yield from _machine(config)
    yield _within("artifact store", STORE_SECONDS, lambda: _store(config))
    yield _within("MLflow", STORE_SECONDS, lambda: _tracking(config))
    yield _ray(config)
    yield from _optional()


# --- this machine -----------------------------------------------------------------------------------------------------


def _packages() -> Iterator[Finding]:
    """Compare the installed packages with pyproject.toml and the versions of constraints.txt."""
    project, pins = PROJECT_ROOT / "pyproject.toml", PROJECT_ROOT / "constraints.txt"
    if not project.is_file() or not pins.is_file():
        yield Finding(
            NOTE, "packages", f"versions are not compared: {PROJECT_ROOT} has no pyproject.toml and constraints.txt"
        )
        return
    import tomllib

    needed = [_package_name(line) for line in tomllib.loads(project.read_text())["project"]["dependencies"]]
    # Lines such as name==1.2.3; other lines are comments.
    pinned = dict(
        line.strip().split("==") for line in pins.read_text().splitlines() if "==" in line and not line.startswith("#")
    )
    pinned = {_package_name(name): version for name, version in pinned.items()}
    installed = {name: version for name in needed if (version := _version(name))}
    missing = [name for name in needed if name not in installed]
    if missing:
        yield Finding(
            PROBLEM,
            "packages",
            f"{', '.join(missing)} must be installed: `make run` does, or pip install -c constraints.txt -e .",
        )
    # The part after + names a build of the same release: torch 2.13.0+cu130.
    other = [
        f"{name} {version} (pinned {pinned[name]})"
        for name, version in installed.items()
        if version.split("+")[0] != pinned.get(name, version)
    ]
    if other:
        yield Finding(NOTE, "packages", f"these versions were not tested: {', '.join(other)}")
    if not missing and not other:
        yield Finding(GOOD, "packages", f"{len(installed)} at their pinned versions")


def _package_name(requirement: str) -> str:
    """`ray[train,data]>=2` -> `ray`, as package indexes compare names."""
    return re.split(r"[\s\[<>=!~;]", requirement.strip())[0].lower().replace("_", "-")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> Finding:
    try:
        import torch
    except Exception as error:  # a broken build raises other errors than ImportError
        return Finding(PROBLEM, "torch", f"cannot be imported ({type(error).__name__}: {error}): install it again")
    if not torch.cuda.is_available():
        return Finding(GOOD, "torch", f"{torch.__version__}, no GPU: everything runs on the CPU")
    names = sorted({torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())})
    return Finding(
        GOOD,
        "torch",
        f"{torch.__version__}, {torch.cuda.device_count()} GPU: {', '.join(names)} (for steps with resources.*.gpus)",
    )


def _machine(config: PipelineConfig) -> Iterator[Finding]:
    from components.store import objects

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield _space("memory", memory, "memory", "close other programs, or lower batch sizes")
    free = objects.free_bytes(objects.absolute(config.artifact_root))
    if free is not None:
        yield _space("disk", free, "free for artifacts", "free some, or set artifact_root to another disk")
    yield _space(
        "disk",
        shutil.disk_usage(_existing(Path(config.state))).free,
        "free for state",
        "free some, or set state to another disk",
    )
    if os.path.isdir("/dev/shm") and not os.environ.get("RAY_ADDRESS"):
        yield _space(
            "shm",
            shutil.disk_usage("/dev/shm").free,
            "free in /dev/shm",
            "Ray falls back to the slower /tmp; in a container, raise --shm-size",
        )
    yield _temporary_folder()
    for fault in (*folder_faults(), *network_faults()):
        yield Finding(NOTE, "environment", fault)


def _temporary_folder() -> Finding:
    """Whether a local Ray has a folder; on a cluster the nodes have their own."""
    from components.cluster.temporary import ray_folder

    try:
        folder = ray_folder()
        if os.environ.get("RAY_TMPDIR") or folder.parent == Path(tempfile.gettempdir()):
            return Finding(GOOD, "temporary folder", str(folder))
        unusable = f"TMPDIR={tempfile.gettempdir()} is too long for Ray's sockets or not this user's own"
        return Finding(NOTE, "temporary folder", f"{unusable}: a local Ray uses {folder} instead")
    except WorldError as error:
        return Finding(NOTE if os.environ.get("RAY_ADDRESS") else PROBLEM, "temporary folder", str(error))


def _space(kind: str, available: float, what: str, cure: str) -> Finding:
    text = f"{available / 1e9:.1f} GB {what}"
    return (
        Finding(GOOD, kind, text)
        if available >= COMFORTABLE_BYTES[kind]
        else Finding(NOTE, kind, f"{text}, little: {cure}")
    )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


# --- servers and the cluster ------------------------------------------------------------------------------------------


def _within(what: str, seconds: float, check: Callable[[], Finding]) -> Finding:
    """The finding of `check`; a problem if it raises or takes longer than `seconds`."""
    import threading

    findings: list[Finding] = []

    def run() -> None:
        from components.tracking.server import without_password

        try:
            findings.append(check())
        except Exception as error:
            findings.append(Finding(PROBLEM, what, without_password(str(error) or type(error).__name__)))

    # A daemon thread: a check that hangs must not keep the process from ending.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return (
        findings[0]
        if findings
        else Finding(PROBLEM, what, f"gave no answer within {seconds:.0f} s: check the network and the address")
    )


def _store(config: PipelineConfig) -> Finding:
    from components.store import objects

    root = objects.absolute(config.artifact_root)
    # Checking creates nothing: where the folder does not exist yet, its nearest existing parent is tried.
    check_writable(str(_existing(Path(root))) if objects.is_local(root) and "://" not in root else root)
    return Finding(GOOD, "artifact store", f"{root} is writable")


def _tracking(config: PipelineConfig) -> Finding:
    from components.tracking.server import check_reachable, sqlite_file, tracking_uri, without_password

    uri = tracking_uri(config.state)
    check_reachable(uri, SERVER_SECONDS)
    if (database := sqlite_file(uri)) is not None:
        folder = _existing(database.parent)
        if not os.access(database if database.exists() else folder, os.W_OK) or not os.access(folder, os.W_OK):
            return Finding(
                PROBLEM, "MLflow", f"{database} must be writable: change its owner, or set `state` to another folder"
            )
        return Finding(
            GOOD, "MLflow", f"SQLite in {database}" + ("" if database.exists() else " (made by the first run)")
        )
    if not uri.startswith(("http", "postgresql", "mysql")):
        return Finding(NOTE, "MLflow", f"{without_password(uri)} was not tried: a run will show whether it answers")
    return Finding(GOOD, "MLflow", f"{without_password(uri)} answers")


def _ray(config: PipelineConfig) -> Finding:
    from pipeline.dag import dag_of, local_cpus

    steps = dag_of(config)
    address, needed = os.environ.get("RAY_ADDRESS", ""), local_cpus(steps)
    if not address:
        wanted = max(step.resources.workers * step.resources.gpus for step in steps.values() if step.resources)
        if wanted > (available := local_gpus()):
            return Finding(
                PROBLEM,
                "Ray",
                f"resources.* ask for {wanted:g} GPUs, this machine has {available}: set gpus: 0, or name a cluster by "
                "RAY_ADDRESS",
            )
        return Finding(
            GOOD, "Ray", f"local, with {max(needed, os.cpu_count() or 1):g} logical CPUs on {os.cpu_count()} cores"
        )
    if address.startswith("ray://"):
        return Finding(
            PROBLEM,
            "Ray",
            f"RAY_ADDRESS must not be a Ray Client address, where Ray Data fails, got {address}: run on the cluster, "
            "by `ray job submit`",
        )
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        return Finding(NOTE, "Ray", f"RAY_ADDRESS={address} is not host:port: a run will show whether it answers")
    try:
        socket.create_connection((host, int(port)), timeout=SERVER_SECONDS).close()
    except OSError as error:
        return Finding(
            PROBLEM,
            "Ray",
            f"nothing answers at RAY_ADDRESS={address} ({error}): start the cluster, correct the address, or unset it "
            "to work locally",
        )
    return Finding(GOOD, "Ray", f"{address} answers; all fits at the same time take {needed:g} CPUs there")


def _optional() -> Iterator[Finding]:
    """What only the tests marked `services` need."""
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    postgres = shutil.which("initdb") or (str(servers[-1]) if servers else None)
    detail = postgres or "not installed: only the tests marked `services` start one"
    yield Finding(GOOD if postgres else NOTE, "PostgreSQL", f"{detail} (optional)")
