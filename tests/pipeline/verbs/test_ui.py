"""`ui`: a port in use is reported before anything starts; the services show the DAG and end on SIGTERM."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from components.errors import UsageError
from pipeline.verbs.ui import serve_ui


def test_a_port_in_use_is_reported_before_anything_starts(config_file, tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(UsageError, match=r"is in use: .* another by --port"),
    ):
        serve_ui(config_file, [], host="127.0.0.1", port=other.getsockname()[1])
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [("127.0.0.1", 0, "must lie in 1..65535"), ("203.0.113.1", 3000, "cannot listen at 203.0.113.1:3000")],
)
def test_an_unavailable_address_is_reported(config_file, host, port, message):
    with pytest.raises(UsageError, match=message):
        serve_ui(config_file, [], host=host, port=port)


def group_size(pid):
    """Number of processes in the group that `pid` leads."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid="], capture_output=True, text=True, check=True).stdout.split()
    return listed.count(str(pid))


@pytest.mark.services
def test_the_dag_is_shown_and_sigterm_ends_all_processes(config_file, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (
        f"exec {sys.executable} -m pipeline ui {config_file} --port {port} --set 'orchestration.schedule=0 3 * * *'"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}
    # SIGINT is ignored, as in a background job of a shell.
    served = subprocess.Popen(
        ["sh", "-c", f"trap '' INT; {command}"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = [served.stdout.readline(), served.stdout.readline()]
        assert lines[1].startswith(f"open http://127.0.0.1:{port}/asset-groups") and "0 3 * * *" in lines[1]
        children = subprocess.run(
            ["ps", "--ppid", str(served.pid), "-o", "pid="], capture_output=True, text=True, check=True
        ).stdout.split()
        query = json.dumps({"query": "{assetNodes{assetKey{path}}}"}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/graphql", query, {"Content-Type": "application/json"}
        )
        nodes = json.load(urllib.request.urlopen(request, timeout=30))["data"]["assetNodes"]
        keys = {node["assetKey"]["path"][0] for node in nodes}
        assert keys == {
            "images",
            "tokenizer",
            "codes",
            "prior_top",
            "prior_bottom",
            "classifier",
            "judge",
            "generator",
            "evaluation",
            "promotion",
        }
    finally:
        served.send_signal(signal.SIGTERM)
        rest, _ = served.communicate(timeout=90)
    assert served.returncode == 0 and "stopping" in rest and len(children) == 1
    deadline = time.monotonic() + 5
    while group_size(children[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group_size(children[0]) == 0
