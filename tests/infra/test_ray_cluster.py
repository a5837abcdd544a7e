"""ray_cluster.yaml checked by Ray's own validation."""

from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.infra.documents import ROOT


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def test_ray_accepts_the_file(config) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


def test_ray_refuses_an_unknown_head_node_type(config) -> None:
    config["head_node_type"] = "heads"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(config))


def test_ray_refuses_an_unknown_setting(config) -> None:
    config["autoscaling"] = True
    with pytest.raises(Exception, match="autoscaling"):
        validate_config(prepare_config(config))


def test_cpu_and_gpu_workers_scale_from_zero(config) -> None:
    kinds = config["available_node_types"]
    assert all(kinds[name]["min_workers"] == 0 < kinds[name]["max_workers"] for name in ("cpu_worker", "gpu_worker"))
    assert kinds["head"]["resources"] == {"CPU": 0}


def test_every_node_requires_a_token_that_is_not_in_the_file(config) -> None:
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    code = yaml.safe_dump(config)
    assert "RAY_AUTH_TOKEN" not in code and "SECRET" not in code
    (mounted,) = config["file_mounts"]
    assert any(f"{mounted}/env" in command for command in config["setup_commands"])


def test_mounts_lie_in_the_home_of_the_image(config) -> None:
    assert "HOME=/home/pipeline" in (ROOT / "Dockerfile").read_text()
    assert all(path.startswith("/home/pipeline/") for path in config["file_mounts"])
