"""The files of cluster/launch, as far as they can be checked without a cloud, Kubernetes or Docker."""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from chronotune import __version__
from chronotune.config.load import load_recipe
from chronotune.gauges import GAUGES, WINDOWS

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "cluster" / "launch"
CLUSTERS = ("aws", "gcp", "hosts")
COMPOSE: dict[str, Any] = yaml.safe_load((LAUNCH / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TEXTS = [path for path in sorted(LAUNCH.rglob("*")) if path.is_file()]


def _cluster(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((LAUNCH / f"{name}.yaml").read_text())
    return loaded


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_accepts_the_cluster(name: str) -> None:
    """Its own preparation and schema, as `ray up` does it before it calls a cloud."""
    prepared = prepare_config(_cluster(name))
    validate_config(prepared)
    workers = [kind for key, kind in prepared["available_node_types"].items() if key != prepared["head_node_type"]]
    least = sum(kind["min_workers"] for kind in workers or prepared["available_node_types"].values())
    assert least >= 2  # a sweep does not call for nodes


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_would_refuse_a_slip(name: str) -> None:
    """The check above can fail."""
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**_cluster(name), "idle_timeout_minuts": 5}))


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_asks_for_the_token(name: str) -> None:
    """Every Ray process is started with it, its file is readable by its owner only, the dashboard stays on the node."""
    cluster = _cluster(name)
    head, workers = cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert any("chmod 600 ~/.ray/auth_token" in command for command in cluster["setup_commands"])
    for command in (head, workers):
        assert re.search(r"RAY_AUTH_MODE=token (RAY_\w+=\S+ )?~/venv/bin/ray start", command)
        assert "--metrics-export-port=8080" in command
    assert "--dashboard-host=127.0.0.1" in head
    assert any(
        "PATH=$HOME/venv/bin" in command and "RAY_AUTH_MODE=token" in command for command in cluster["setup_commands"]
    )


def _resource(kind: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((LAUNCH / "rayjob.yaml").read_text())
    [found] = [document for document in documents if document["kind"] == kind]
    assert isinstance(found, dict)
    return found


FIELDS = {
    "": "apiVersion kind metadata spec",
    "spec": "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
    "entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec "
    "runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
    "ttlSecondsAfterFinished",
    "spec.rayClusterSpec": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions "
    "headGroupSpec headServiceAnnotations managedBy rayVersion suspend upgradeStrategy workerGroupSpecs",
    "spec.rayClusterSpec.authOptions": "enableK8sTokenAuth mode secretName",
    "spec.rayClusterSpec.headGroupSpec": "enableIngress headService labels rayStartParams resources serviceType "
    "template",
    "spec.rayClusterSpec.workerGroupSpecs": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts "
    "rayStartParams replicas resources scaleStrategy suspend template",
}
"""Fields of a RayJob of ray.io/v1, as in KubeRay 1.7's custom resource definition; pods are Kubernetes' own."""


def _unknown_fields(job: dict[str, Any]) -> Iterator[str]:
    for place, known in FIELDS.items():
        parts: Any = job
        for key in filter(None, place.split(".")):
            parts = parts[key]
        for part in parts if isinstance(parts, list) else [parts]:
            yield from (f"{place}.{key}" for key in part if key not in known.split())


def test_the_rayjob_has_the_fields_of_its_definition() -> None:
    """None is misspelt, and one that is, is found."""
    job = _resource("RayJob")
    assert job["apiVersion"] == "ray.io/v1"
    assert list(_unknown_fields(job)) == []
    wrong = copy.deepcopy(job)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    assert list(_unknown_fields(wrong)) == ["spec.rayClusterSpec.workerGroupSpecs.minReplica"]


def test_the_rayjob_ends_and_is_closed() -> None:
    """Token on, GPU workers, the cluster goes when the job ends, rights are few, volumes are there."""
    spec = _resource("RayJob")["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] in (ROOT / "constraints.txt").read_text().split("ray==")[1][:8]
    [workers] = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == workers["replicas"] == workers["maxReplicas"]
    [worker] = workers["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    claim = _resource("PersistentVolumeClaim")
    assert claim["metadata"]["name"] == pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    selected = _resource("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert selected == cluster["headGroupSpec"]["template"]["metadata"]["labels"]
    assert selected == workers["template"]["metadata"]["labels"]


def test_compose_refers_to_what_is_there() -> None:
    """Secrets, volumes, files and services are declared and used; who is waited for has a health check."""
    used_secrets, used_volumes = set[str](), set[str]()
    for name, service in SERVICES.items():
        used_secrets |= set(service.get("secrets", ()))
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (LAUNCH / source).exists(), source
            else:
                used_volumes.add(source)
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "healthcheck" in SERVICES[other], (name, other)
    assert used_secrets == set(COMPOSE["secrets"])
    assert used_volumes == set(COMPOSE["volumes"])
    build = SERVICES["ray-head"]["build"]
    assert (LAUNCH / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert all(service.get("image") for service in SERVICES.values())


def test_compose_opens_nothing_to_the_network() -> None:
    """Ports on 127.0.0.1 only, one each; images by exact tag; Ray asks for its token."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)
    assert len(set(ports)) == len(ports)
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", service["image"]), service["image"]
        if name.startswith("ray-"):
            assert service["environment"]["RAY_AUTH_MODE"] == "token"
            assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert SERVICES["ray-head"]["image"] == f"chronotune:{__version__}"


def test_compose_holds_no_secret() -> None:
    """What could hold one names a file under /run/secrets instead, also in commands."""
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|CREDENTIAL|ACCESS_KEY", key):
                assert value.startswith("/run/secrets/"), key
        command = service.get("command", "")
        assert not re.search(r"://[^/@\s]*:[^/@\s]+@", command if isinstance(command, str) else " ".join(command))
    for path in COMPOSE["secrets"].values():
        assert path["file"].startswith("${CHRONOTUNE_SECRETS:-${HOME}/"), "secrets lie outside the repository"


def test_the_secrets_are_random_and_private(tmp_path: Path) -> None:
    """Each as compose.yaml names it, readable by its owner only, and left alone by a second run."""
    if (shell := shutil.which("sh")) is None:
        pytest.skip("there is no sh")
    folder = tmp_path / "secrets"
    environment = {"CHRONOTUNE_SECRETS": str(folder), "PATH": "/usr/bin:/bin"}
    before: dict[str, str] = {}
    for _ in range(2):
        subprocess.run([shell, LAUNCH / "secrets.sh"], env=environment, check=True, capture_output=True)
        after = {path.name: path.read_text() for path in folder.iterdir()}
        assert before in ({}, after)
        before = after
    assert set(before) == {path["file"].rsplit("/", 1)[1] for path in COMPOSE["secrets"].values()}
    assert len(set(before.values())) == len(before)
    assert all(len(before[name]) == 64 for name in ("ray_token", "postgres_password", "grafana_password"))
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    [identity] = json.loads(before["s3_identities.json"])["identities"]
    assert identity["credentials"][0]["secretKey"] in before["s3_credentials"]


def test_the_dockerfile_is_clean() -> None:
    """By hadolint where it is installed; in any case: exact bases, no root at the end, nothing secret copied."""
    path = LAUNCH / "Dockerfile"
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.match(r"FROM \S+:\d\S*", line) for line in lines if line.startswith("FROM"))
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 1000"
    ignored = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    copied = [line[1:] for line in ignored if line.startswith("!")]
    assert all(list(ROOT.glob(pattern)) for pattern in copied), copied
    if hadolint := shutil.which("hadolint"):
        done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_prometheus_finds_every_ray_node() -> None:
    """The names and the port of compose.yaml."""
    [job] = yaml.safe_load((LAUNCH / "prometheus.yml").read_text())["scrape_configs"]
    [names] = job["dns_sd_configs"]
    assert set(names["names"]) == {name for name in SERVICES if name.startswith("ray-")}
    for name in names["names"]:
        assert f"--metrics-export-port={names['port']}" in SERVICES[name]["command"]


def exported_names() -> set[str]:
    """Our metrics, as Prometheus sees them."""
    return {*(f"ray_{name}" for name in GAUGES), f"ray_{WINDOWS}_total"}


def test_grafana_draws_exactly_our_metrics() -> None:
    """Each somewhere, and none that is not there; every panel says what one should see."""
    board = json.loads((LAUNCH / "grafana/dashboards/chronotune.json").read_text())
    drawn = {name for panel in board["panels"] for target in panel["targets"] for name in _names(target["expr"])}
    assert drawn == exported_names()
    assert all(panel["description"] for panel in board["panels"])
    [source] = yaml.safe_load((LAUNCH / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}


def _names(expression: str) -> list[str]:
    return re.findall(r"ray_chronotune_\w+", expression)


def test_the_readme_explains_every_metric_and_file() -> None:
    """In its two tables."""
    text = (LAUNCH / "README.md").read_text()
    assert set(re.findall(r"^\| `(ray_\w+)` \|", text, re.M)) == exported_names()
    for path in LAUNCH.iterdir():
        known = f"`{path.name}`" in text or f"`{path.name}/`" in text
        assert known or path.name in ("README.md", "Dockerfile.dockerignore"), path.name


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_the_sweeps_that_are_started_exist(path: Path) -> None:
    """Each `chronotune run RECIPE --set KEY=VALUE` in a command names what this version knows."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    for found in re.findall(r"chronotune run ([^;\n`]+)", re.sub(r"\n    (?=else|--)", " ", text)):
        words = shlex.split(found.replace("'", ""))
        overrides = [value for key, value in pairwise(words) if key == "--set"]
        assert load_recipe(words[0], overrides).cluster.kind == "here"


def test_the_sweep_of_compose_fits_its_workers() -> None:
    """By the command in the README."""
    text = re.sub(r"\\\n\s*", " ", (LAUNCH / "README.md").read_text())
    [command] = re.findall(r"\$compose exec ray-head chronotune run ([^\n]+)", text)
    words = shlex.split(command)
    cluster = load_recipe(words[0], [value for key, value in pairwise(words) if key == "--set"]).cluster
    assert f"--num-cpus={cluster.cpus_per_trial} " in SERVICES["ray-worker"]["command"]
    assert "--num-gpus" not in SERVICES["ray-worker"]["command"]
    assert cluster.gpus_per_trial == 0


def test_aws_opens_ssh_to_nobody_by_itself() -> None:
    """A group that Ray makes would open it to the world: every kind of node is in one of your own."""
    cluster = _cluster("aws")
    assert "security_group" not in cluster["provider"]
    assert all(kind["node_config"]["SecurityGroupIds"] for kind in cluster["available_node_types"].values())
    profiles = [kind["node_config"]["IamInstanceProfile"]["Name"] for kind in cluster["available_node_types"].values()]
    assert len(set(profiles)) == len(profiles)  # who runs trials may not start machines
