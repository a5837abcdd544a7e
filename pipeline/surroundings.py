"""Environment variables that keep a run from its servers and folders: what is wrong with them, and the cure.

`doctor` prints all of it; the command line adds it to an error of a server, a bucket or a folder. Standard library
only.
"""

import locale
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/]*@")


def bypass_proxies_on_loopback() -> None:
    """Let no request to a server of this machine pass through a proxy, in this process and those that it starts."""
    if _proxies():
        for name in ("no_proxy", "NO_PROXY"):  # programs differ in which of the two they read
            listed = [host.strip() for host in (os.environ.get(name) or "").split(",") if host.strip()]
            os.environ[name] = ",".join(dict.fromkeys((*listed, *LOOPBACK)))


def print_any_name() -> None:
    """Let names of files be printed that the terminal's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def network_faults() -> Iterator[str]:
    """What about the environment may keep requests from a server or a bucket."""
    for name, value in _proxies().items():
        yield (
            f"{name}={_CREDENTIALS.sub('***@', value)} is set: requests to other machines pass through it; where it "
            "must not be used, unset it or add the server's name to no_proxy"
        )
    yield from _access_faults()


def _proxies() -> dict[str, str]:
    """Proxy variables that are set, in either case."""
    names = [spelling for name in PROXIES for spelling in (name, name.upper())]
    return {name: value for name in names if (value := os.environ.get(name))}


def _access_faults() -> Iterator[str]:
    """Contradictions between the variables with the address and the credentials of an object store."""
    given = {name: value for name, value in os.environ.items() if name.startswith("AWS_") and value}
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        if name in given and not given[name].startswith(("http://", "https://")):
            yield f"{name} must begin with http:// or https://, got {given[name]}"
    for first, second, what in (
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "the first is used"),
        ("AWS_REGION", "AWS_DEFAULT_REGION", "set one of them"),
    ):
        if first in given and second in given and given[first] != given[second]:
            yield f"{first}={given[first]} and {second}={given[second]} differ: {what}"
    key, secret = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
    if (key in given) != (secret in given):
        there, missing = (key, secret) if key in given else (secret, key)
        yield f"{there} is set and {missing} is not: set both, or neither"
    if "AWS_SESSION_TOKEN" in given and key not in given:
        yield f"AWS_SESSION_TOKEN is set and {key} is not: set both, or neither"
    if key in given and "AWS_PROFILE" in given:
        yield f"{key} and AWS_PROFILE={given['AWS_PROFILE']} are both set: the key is used, not the profile"
    for name in (key, secret, "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        if given.get(name, "") != given.get(name, "").strip():
            yield f"{name} begins or ends with a space or a line end: set it without"


def folder_faults() -> Iterator[str]:
    """Which variables name folders that cannot be written, and what is used instead."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        folder = os.environ.get(name)
        if folder and not _is_writable(folder):
            yield f"{name}={folder} cannot be written: set it to a folder that can{_used_instead()}"
    home = os.environ.get("HOME")
    if not home:
        yield "HOME is not set: programs that keep settings or a cache there may fail; set it to a writable folder"
    elif not _is_writable(home):
        yield f"HOME={home} cannot be written: a cluster's token lies there; set it to a folder that can"
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        yield "the current folder was removed: change to another one"
        return
    if not _is_writable(here):
        yield f"the current folder {here} cannot be written: set state and artifact_root to folders that can"
    if locale.getpreferredencoding(False).lower().replace("-", "") != "utf8":
        yield (
            f"the encoding of this locale is {locale.getpreferredencoding(False)}: names of files in other characters "
            "cannot be opened; set LC_ALL=C.UTF-8"
        )


def _used_instead() -> str:
    try:
        return f" ({tempfile.gettempdir()} is used instead)"
    except FileNotFoundError:
        return ""


def _is_writable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
