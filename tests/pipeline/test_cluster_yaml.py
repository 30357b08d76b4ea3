from __future__ import annotations

from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


def test_ray_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


def test_ray_would_refuse_a_broken_one(cluster: dict[str, Any]) -> None:
    broken = {**cluster, "no_such_field": 1}
    with pytest.raises(Exception, match="no_such_field"):
        validate_config(prepare_config(broken))


def test_every_node_asks_for_the_token_and_spills_on_nvme(cluster: dict[str, Any]) -> None:
    for role in ("head", "worker"):
        (start,) = [line for line in cluster[f"{role}_start_ray_commands"] if "ray start" in line]
        assert "RAY_AUTH_MODE=token" in start
        assert "--object-spilling-directory=/opt/dlami/nvme" in start
    assert any(target.endswith(".ray/auth_token") for target in cluster["file_mounts"])


def test_workers_may_be_spot_and_the_head_is_not(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    spot = {
        name
        for name, node in types.items()
        if node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    }
    assert spot == set(types) - {cluster["head_node_type"]} == {"h200", "decode"}
    assert types["h200"]["resources"]["GPU"] == 8
