"""Check the Kubernetes files without a cluster."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import parse_arguments
from pipeline.config import RunConfig, load_config
from pipeline.driver.ray_session import reserved_cpus, reserved_gpus
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "kuberay"
# The config map that rayjob.yaml describes in a comment: its path in the pods, and its source.
MOUNTED = {"/etc/omnitrace/run.yaml": ROOT / "configs" / "qwen2_5_omni.yaml"}


def _pinned(package: str) -> str:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    (found,) = [line.partition("==")[2] for line in pins if line.startswith(f"{package}==")]
    return found


@pytest.fixture
def job() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
    return loaded


@pytest.fixture
def nightly() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / "nightly.yaml").read_text()))


def _config(entrypoint: str) -> RunConfig:
    """The config that an entrypoint loads; its command line must be valid, its file must exist."""
    program, *rest = shlex.split(entrypoint)
    assert program == "omnitrace"
    arguments = parse_arguments(rest)
    assert arguments.verb == "run"
    return load_config(str(MOUNTED[arguments.config]), arguments.overrides)


def _patched(tree: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A copy with the changes of `kubectl patch --type=merge`."""
    tree = copy.deepcopy(tree)
    for key, value in patch.items():
        tree[key] = _patched(tree.get(key, {}), value) if isinstance(value, dict) else value
    return tree


def _pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_all_pods_use_the_same_ray(job: dict[str, Any]) -> None:
    ray = _pinned("ray")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray
    assert f"FROM rayproject/ray:{ray}-py311\n" in (FOLDER / "Dockerfile").read_text()
    pods = [*_pods(job), job["spec"]["submitterPodTemplate"]["spec"]]
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1


def test_dockerfile_installs_extras_that_exist() -> None:
    (line,) = re.findall(r"pip install .*'\.\[(.*)\]'", (FOLDER / "Dockerfile").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in project for extra in line.split(","))


def test_docker_and_git_ignore_the_same_files() -> None:
    """Docker does not read .gitignore, and its patterns begin at the root."""
    patterns = [
        line for line in (ROOT / ".dockerignore").read_text().split("\n") if line[:1] not in "#"
    ]
    assert "COPY --chown=ray:users . ." in (FOLDER / "Dockerfile").read_text()
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    assert {".git", *ignored} == {line.removeprefix("**/") for line in patterns}
    needed = ["pyproject.toml", "constraints.txt", "README.md", "LICENSE", "configs"]
    for name in [*needed, "omnitrace_core", "stages", "pipeline"]:
        assert (ROOT / name).exists()
        assert not any(fnmatch(name, line.removeprefix("**/")) for line in patterns)


def test_entrypoint_starts_a_run_on_the_cluster(job: dict[str, Any]) -> None:
    config = _config(job["spec"]["entrypoint"])
    assert config.run.id is None, (
        "a job with other input or settings would replace its published files"
    )
    assert config.ray.address == "auto"
    head = _pods(job)[0]
    mounts = head["containers"][0]["volumeMounts"]
    assert {mount["mountPath"] for mount in mounts} == {str(Path(path).parent) for path in MOUNTED}
    source = re.search(r"--from-file=run\.yaml=(\S+)", (FOLDER / "rayjob.yaml").read_text())
    assert source is not None
    assert ROOT / source[1] == MOUNTED["/etc/omnitrace/run.yaml"]


def test_pods_have_room_for_the_graph(job: dict[str, Any]) -> None:
    config = _config(job["spec"]["entrypoint"])
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    limits = {
        name: group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for name, group in groups.items()
    }
    gpus = int(limits["h200"]["nvidia.com/gpu"])
    assert config.model.replicas % gpus == 0
    n_pods = config.model.replicas // gpus
    assert n_pods <= groups["h200"]["maxReplicas"]
    assert gpus * config.ray.trace_cpus <= int(limits["h200"]["cpu"])
    assert reserved_gpus(config) == n_pods * gpus
    on_cpus = reserved_cpus(config) - config.model.replicas * config.ray.trace_cpus
    assert on_cpus <= int(limits["decode"]["cpu"]) * groups["decode"]["maxReplicas"]
    for group in groups.values():
        # Worker groups start with no pods.
        assert group["minReplicas"] == group["replicas"] == 0
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        # Ray spills to a mounted volume.
        spill = Path(group["rayStartParams"]["object-spilling-directory"])
        assert str(spill.parent) in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_job_is_retried_and_cluster_is_deleted(job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"]
    wait_s = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]
    assert int(wait_s) >= 10


def test_token_and_spot(job: dict[str, Any]) -> None:
    auth = job["spec"]["rayClusterSpec"]["authOptions"]
    assert auth == {"mode": "token", "secretName": "omnitrace-token"}
    text = (FOLDER / "rayjob.yaml").read_text()
    assert f"secret generic {auth['secretName']} --from-literal=auth_token=" in text
    head, *workers = _pods(job)
    assert head["nodeSelector"]["karpenter.sh/capacity-type"] == "on-demand"
    assert "tolerations" not in head
    for worker in workers:
        assert worker["nodeSelector"]["karpenter.sh/capacity-type"] == "spot"
        assert "spot" in {item["key"] for item in worker["tolerations"]}
    # Keys for the bucket come from the environment; the file must not contain any.
    assert not re.search(r"AKIA|SECRET_ACCESS_KEY:", text)


def _needed(tree: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of the objects that the pods below need to start."""
    if isinstance(tree, list):
        for item in tree:
            yield from _needed(item)
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key == "serviceAccountName":
            yield "serviceaccount", value
        elif key == "secretName":
            yield "secret", value
        elif key in ("secretRef", "secretKeyRef", "configMap", "configMapRef", "configMapKeyRef"):
            if not value.get("optional"):
                yield "secret" if key.startswith("secret") else "configmap", value["name"]
        else:
            yield from _needed(value)


def test_objects_that_pods_need_are_created_first(
    job: dict[str, Any], nightly: list[dict[str, Any]]
) -> None:
    document = (ROOT / "docs" / "cluster.md").read_text()
    created = set(re.findall(r"kubectl create (serviceaccount|configmap) (\S+)", document))
    created |= {
        ("secret", name) for name in re.findall(r"kubectl create secret generic (\S+)", document)
    }
    created |= {(item["kind"].lower(), item["metadata"]["name"]) for item in nightly}
    needed = set(_needed([job, nightly]))
    assert len(needed) == 5
    assert needed <= created
    # The optional secret is documented, too, with the keys that s3fs looks for.
    assert ("secret", "omnitrace-s3") in created
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        assert f'--from-literal={key}="${key}"' in document
    for path in re.findall(r"docs/kuberay/\w+\.yaml", document):
        assert (ROOT / path).exists()


def test_each_night_is_a_separate_run(job: dict[str, Any], nightly: list[dict[str, Any]]) -> None:
    by_kind = {item["kind"]: item for item in nightly}
    pod = by_kind["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (script,) = pod["containers"][0]["args"]
    patch = yaml.safe_load(script.partition("<<END\n")[2].partition("\nEND\n")[0])
    nightly_job = _patched(job, patch)
    assert nightly_job["metadata"]["name"] == "omnitrace-$DAY"
    assert nightly_job["spec"]["rayClusterSpec"] == job["spec"]["rayClusterSpec"]
    config = _config(nightly_job["spec"]["entrypoint"].replace("$DAY", "2026-01-31"))
    assert (config.run.id, str(config.run.date)) == ("nightly", "2026-01-31")
    assert config.input.path.endswith("date=2026-01-31")


def test_nightly_role_only_creates_jobs(nightly: list[dict[str, Any]]) -> None:
    by_kind = {item["kind"]: item for item in nightly}
    assert by_kind["Role"]["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}
    ]
    name = by_kind["ServiceAccount"]["metadata"]["name"]
    assert by_kind["RoleBinding"]["roleRef"]["name"] == by_kind["Role"]["metadata"]["name"]
    assert by_kind["RoleBinding"]["subjects"][0]["name"] == name
    pod = by_kind["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == name
