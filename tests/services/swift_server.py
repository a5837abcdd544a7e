"""An S3 server on loopback: OpenStack Swift, one device, four processes (swift/ has their settings).

Like S3 it refuses a wrong secret and supports `If-None-Match: *` for an existing object. Unlike S3 it checks before it
writes, so that several simultaneous puts may all succeed: no test may depend on such a race.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

import botocore.session

from tests.services.processes import Server, answers, free_port, listens

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".cache" / "swift-venv" / "bin" / "python"
STORAGE = ("account", "container", "object")


@dataclass(frozen=True)
class ObjectStore:
    """Address and credentials of an S3 server, and its bucket."""

    endpoint: str
    key: str
    secret: str
    bucket: str
    region: str = "us-east-1"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which every S3 client finds this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": self.region,
        }

    def make_bucket(self) -> None:
        """Create the bucket."""
        client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name=self.region,
        )
        client.create_bucket(Bucket=self.bucket)


def _install() -> None:
    done = subprocess.run([HERE / "install.sh", "swift"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(
            "the tests need OpenStack Swift as their S3 server, and it could not be installed: run "
            f"tests/services/install.sh swift, and see that pip reaches a package index.\n{done.stdout}{done.stderr}"
        )


def _require_extended_attributes(folder: Path) -> None:
    probe = folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"1")
    except OSError as error:
        raise RuntimeError(
            f"the S3 server needs a filesystem with extended attributes, {folder} has none ({error}): "
            "run pytest with --basetemp on ext4, xfs or btrfs"
        ) from error


def _write_settings(folder: Path, ports: dict[str, int], secret: str) -> None:
    (folder / "data" / "d1").mkdir(parents=True)
    shutil.copy(HERE / "swift" / "swift.conf", folder)
    common = {"folder": folder, "user": getpass.getuser(), "secret": secret, "memcache_port": free_port()}
    for name, port in ports.items():
        template = HERE / "swift" / ("proxy.conf" if name == "proxy" else "storage.conf")
        settings = Template(template.read_text()).substitute(common, name=name, port=port)
        (folder / f"{name}.conf").write_text(settings)


@contextlib.contextmanager
def swift_server(folder: Path) -> Iterator[ObjectStore]:
    """A running server with its data in `folder` and an empty bucket; stopped at the end."""
    _install()
    _require_extended_attributes(folder)
    ports = {name: free_port() for name in (*STORAGE, "proxy")}
    store = ObjectStore(f"http://127.0.0.1:{ports['proxy']}", "test:tester", secrets.token_hex(16), "artifacts")
    _write_settings(folder, ports, store.secret)
    rings = [PYTHON, HERE / "swift" / "rings.py", folder, *(str(ports[name]) for name in STORAGE)]
    subprocess.run(rings, check=True, cwd=folder)
    with contextlib.ExitStack() as stack:
        servers = {}
        for name in ports:
            servers[name] = Server([PYTHON, HERE / "swift" / "serve.py", name, folder], log=folder / f"{name}.log")
            stack.callback(servers[name].stop)
        for name in STORAGE:
            servers[name].wait_until(lambda name=name: listens(ports[name]), seconds=120)
        servers["proxy"].wait_until(lambda: answers(f"{store.endpoint}/healthcheck"), seconds=120)
        store.make_bucket()
        yield store
