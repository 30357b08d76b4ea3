from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from pipeline.config import load_config
from pipeline.driver.ray_session import reserved_cpus, reserved_gpus
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


def test_ray_accepts_the_file(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


def test_file_follows_the_schema_of_ray(cluster: dict[str, Any]) -> None:
    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    jsonschema.validate(cluster, json.loads(schema.read_text()))


def test_ray_refuses_a_broken_file(cluster: dict[str, Any]) -> None:
    broken = {**cluster, "no_such_field": 1}
    with pytest.raises(Exception, match="no_such_field"):
        validate_config(prepare_config(broken))


def test_every_node_requires_the_token_and_spills_to_nvme(cluster: dict[str, Any]) -> None:
    for role in ("head", "worker"):
        (start,) = [line for line in cluster[f"{role}_start_ray_commands"] if "ray start" in line]
        assert "RAY_AUTH_MODE=token" in start
        assert "--object-spilling-directory=/opt/dlami/nvme" in start
    assert any(target.endswith(".ray/auth_token") for target in cluster["file_mounts"])


def test_workers_are_spot_nodes_and_the_head_is_not(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    spot = {
        name
        for name, node in types.items()
        if node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    }
    assert spot == set(types) - {cluster["head_node_type"]} == {"h200", "decode"}
    assert types["h200"]["resources"]["GPU"] == 8


def test_only_the_head_has_a_role_that_starts_nodes(cluster: dict[str, Any]) -> None:
    """docs/cluster.md lists both roles and their rights."""
    roles = {
        name: node["node_config"]["IamInstanceProfile"]["Name"]
        for name, node in cluster["available_node_types"].items()
    }
    assert roles == {"head": "omnitrace-head", "h200": "omnitrace-node", "decode": "omnitrace-node"}
    document = (ROOT / "docs" / "cluster.md").read_text()
    (head,) = [
        line for line in document.splitlines() if line.startswith("| the head, `omnitrace-head`")
    ]
    for right in ("ec2:RunInstances", "ec2:CreateTags", "ec2:DescribeInstances", "iam:PassRole"):
        assert f"`{right}`" in head
    (workers,) = [
        line for line in document.splitlines() if line.startswith("| workers, `omnitrace-node`")
    ]
    assert "ec2:" not in workers


def test_documented_quotas_cover_all_nodes(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    document = (ROOT / "docs" / "cluster.md").read_text()
    for name in ("h200", "decode"):
        nodes, cpus = types[name]["max_workers"], types[name]["resources"]["CPU"]
        assert f"{nodes} x {cpus} = {nodes * cpus:,}" in document.replace("=\n", "= ")


def test_nodes_have_room_for_the_graph(cluster: dict[str, Any]) -> None:
    config = load_config(str(ROOT / "configs" / "qwen2_5_omni.yaml"))
    types = cluster["available_node_types"]
    gpus = types["h200"]["resources"]["GPU"]
    assert config.model.replicas % gpus == 0
    n_nodes = config.model.replicas // gpus
    assert n_nodes <= types["h200"]["max_workers"]
    assert reserved_gpus(config) == n_nodes * gpus
    assert gpus * config.ray.trace_cpus <= types["h200"]["resources"]["CPU"]
    on_cpus = reserved_cpus(config) - config.model.replicas * config.ray.trace_cpus
    assert on_cpus <= types["decode"]["max_workers"] * types["decode"]["resources"]["CPU"]
    workers = [node for name, node in types.items() if name != cluster["head_node_type"]]
    assert sum(node["max_workers"] for node in workers) <= cluster["max_workers"]
    # Every stage reserves a CPU or a part of one, so none of them runs on a head without CPUs.
    stage_cpus = [
        value for name, value in config.ray.model_dump().items() if name.endswith("_cpus")
    ]
    assert len(stage_cpus) == 5
    assert min(stage_cpus) > 0
    assert types[cluster["head_node_type"]]["resources"] == {"CPU": 0}


def test_nodes_install_the_packages_that_the_config_needs(cluster: dict[str, Any]) -> None:
    (install,) = [line for line in cluster["setup_commands"] if "pip install" in line]
    assert "constraints.txt" in install
    assert "[cluster,paraformer]" in install
    assert load_config(str(ROOT / "configs" / "qwen2_5_omni.yaml")).asr.engine == "paraformer"


def test_options_of_ray_start_exist(cluster: dict[str, Any]) -> None:
    ray_command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--help"]
    known = subprocess.run(
        ray_command, env=os.environ, capture_output=True, text=True, check=True
    ).stdout
    for role in ("head", "worker"):
        (start,) = [line for line in cluster[f"{role}_start_ray_commands"] if "ray start" in line]
        options = [word.partition("=")[0] for word in start.split() if word.startswith("--")]
        assert options
        for option in options:
            assert option in known, option
