"""Environment variables in the way of a run are named with a cure."""

import http.server
import os
import subprocess
import sys
import threading
import urllib.request

import pytest

from pipeline.surroundings import PROXIES, bypass_proxies_on_loopback, folder_faults, network_faults

KEYS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"all_proxy": "socks5://a"}, "all_proxy=socks5://a is set"),
        (
            {"AWS_ENDPOINT_URL": "localhost:9000"},
            "AWS_ENDPOINT_URL must begin with http:// or https://, got localhost:9000",
        ),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, "differ: the first is used"),
        ({"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}, "AWS_REGION=a and AWS_DEFAULT_REGION=b differ"),
        ({"AWS_ACCESS_KEY_ID": "k"}, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"),
        ({"AWS_SECRET_ACCESS_KEY": "s"}, "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not"),
        ({"AWS_SESSION_TOKEN": "t"}, "AWS_SESSION_TOKEN is set and AWS_ACCESS_KEY_ID is not"),
        (KEYS | {"AWS_PROFILE": "work"}, "AWS_ACCESS_KEY_ID and AWS_PROFILE=work are both set"),
        (KEYS | {"AWS_SECRET_ACCESS_KEY": "s\n"}, "AWS_SECRET_ACCESS_KEY begins or ends with a space or a line end"),
    ],
)
def test_each_variable_in_the_way_of_a_server_is_named(monkeypatch, variables, message):
    assert list(network_faults()) == []
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (fault,) = network_faults()
    assert message in fault


@pytest.mark.parametrize(("name", "value"), [("TMPDIR", "/nonexistent"), ("HOME", "/nonexistent"), ("HOME", "")])
def test_each_variable_with_an_unwritable_folder_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert any(fault.startswith(name) for fault in folder_faults())


def test_a_removed_current_folder_is_told(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "the current folder was removed: change to another one" in list(folder_faults())


@pytest.mark.parametrize("proxy", [*PROXIES, "HTTP_PROXY"])
def test_a_server_of_this_machine_is_reached_past_every_proxy(monkeypatch, proxy):
    """A real server, and a proxy at which nothing listens."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    bypass_proxies_on_loopback()
    assert urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=5).status == 200
    assert os.environ["no_proxy"].split(",") == ["example.org", "localhost", "127.0.0.1", "::1"]
    server.server_close()


def test_names_that_the_encoding_lacks_are_printed(tmp_path):
    (tmp_path / "ünï 😀.yaml").write_text("seed: x\nbase: digits\n")
    command = [sys.executable, "-m", "pipeline", "validate", str(tmp_path / "ünï 😀.yaml")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 2 and rb"\xfcn\xef \U0001f600.yaml has 1 fault" in done.stderr
