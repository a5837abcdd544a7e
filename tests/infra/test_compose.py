"""compose.yaml checked with the compose specification and the rules of this project."""

import re
import subprocess
import sys

import pytest
import yaml

from pipeline.config_files import load_config
from tests.infra.documents import ROOT, compose

FILE = ROOT / "infra" / "compose.yaml"
SERVICES = compose()["services"]
ONE_SHOT = {"bucket"}


def validate_schema(path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_file_follows_the_compose_specification(tmp_path) -> None:
    assert validate_schema(FILE).returncode == 0, validate_schema(FILE).stdout
    wrong = compose()
    wrong["services"]["mlflow"]["portz"] = []
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))
    assert validate_schema(tmp_path / "compose.yaml").returncode == 1


def test_every_port_is_bound_to_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_secrets_come_from_the_environment_and_must_be_set() -> None:
    for service in SERVICES.values():
        for key, value in service["environment"].items() if "environment" in service else ():
            if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY_ID", key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), key
            assert "://" not in value or ":${" in value or "@" not in value, key


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_a_pinned_image_and_a_health_check(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":\d+\.\d+", service["image"])
    if name in ONE_SHOT:
        assert service["restart"] == "no"
    elif name != "ray-worker":  # stops with the head
        assert "test" in service["healthcheck"]


def test_our_image_drops_all_capabilities() -> None:
    ours = [service for service in SERVICES.values() if service["image"].startswith("vqvae2:")]
    assert len(ours) == 7
    assert all(
        service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"] for service in ours
    )


def test_the_pipeline_shares_the_node_of_the_ray_head() -> None:
    shared = SERVICES["pipeline"]
    assert {shared["network_mode"], shared["pid"], shared["ipc"]} == {"service:ray-head"}
    assert set(SERVICES["ray-head"]["volumes"]) <= set(shared["volumes"])


def test_the_pipeline_accepts_the_config(tmp_path) -> None:
    (tmp_path / "config.yaml").write_text(compose()["configs"]["pipeline"]["content"])
    assert load_config(str(tmp_path / "config.yaml")).artifact_root == "s3://vqvae2/artifacts"
