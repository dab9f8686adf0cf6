"""deploy/kubernetes: what kustomize builds keeps the schemas of Kubernetes, and fits the daemon."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry

from daemon.config import ENV_PREFIX, Settings, load_settings
from daemon.errors import SettingsError
from daemon.health import Health, HealthServer
from daemon.stopping import DEADLINE_SECONDS
from daemon.transport.admin import PARTITIONS_DEFAULT
from daemon.watchdog import LAST_WORDS_SECONDS, LOOK_SECONDS
from tests.deploy.compose_file import ROOT
from tests.deploy.test_dockerfile import last

FOLDER = ROOT / "deploy" / "kubernetes"
BUILDS = ("base", *(f"overlays/{name}" for name in ("podmonitor", "keda", "toolbox", "production")))
#: The oldest and the newest that are promised.
VERSIONS = ("1.30", "1.37")
#: Kinds of others, of which there is no schema here: the keys that we use, by path; a list counts as its elements.
CUSTOM_KEYS = {
    "PodMonitor": {
        "spec": {"jobLabel", "selector", "podMetricsEndpoints"},
        "spec.selector": {"matchLabels"},
        "spec.podMetricsEndpoints": {"port", "path", "interval", "scrapeTimeout"},
    },
    "ScaledObject": {
        "spec": {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "advanced", "triggers"},
        "spec.scaleTargetRef": {"apiVersion", "kind", "name"},
        "spec.advanced": {"horizontalPodAutoscalerConfig"},
        "spec.advanced.horizontalPodAutoscalerConfig": {"behavior"},
        "spec.triggers": {"type", "metadata", "authenticationRef"},
        "spec.triggers.metadata": {
            "bootstrapServers", "consumerGroup", "topic", "lagThreshold", "offsetResetPolicy", "excludePersistentLag",
            "sasl", "tls",
        },
    },
    "TriggerAuthentication": {"spec": {"secretTargetRef"}, "spec.secretTargetRef": {"parameter", "name", "key"}},
}  # fmt: skip

Manifest = dict[str, Any]


@cache
def built(name: str) -> tuple[Manifest, ...]:
    """Return what kustomize makes of a folder."""
    if program := shutil.which("kustomize"):
        command = [program, "build"]
    elif program := shutil.which("kubectl"):
        command = [program, "kustomize"]
    else:
        pytest.skip("no kustomize and no kubectl on the path: go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1")
    done = subprocess.run([*command, str(FOLDER / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


@cache
def validate(manifest: str, release: str) -> None:
    """Hold a manifest to its schema, once however many builds hold it: each time takes a third of a second."""
    kubernetes_validate.validate(json.loads(manifest), release, strict=True)


def one(name: str, kind: str) -> Manifest:
    (found,) = (each for each in built(name) if each["kind"] == kind)
    return found


def pod_of(name: str) -> Manifest:
    return one(name, "StatefulSet")["spec"]["template"]["spec"]


def container_of(name: str) -> Manifest:
    (container,) = pod_of(name)["containers"]
    return container


def settings_of(name: str, container: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Load what a container would: its environment over the file of its ConfigMap."""
    (text,) = one(name, "ConfigMap")["data"].values()
    file = tmp_path / "tickcast.toml"
    file.write_text(text)
    for each in container.get("env", []):
        assert each["name"].startswith(ENV_PREFIX)
        monkeypatch.setenv(each["name"], each.get("value", "tickcast-0"))
    return load_settings(file)


def keys_at(value: Any, path: str) -> set[str]:
    """Return the keys at a dotted path, those of all elements where it passes through lists."""
    for part in path.split("."):
        value = [each[part] for each in value if part in each] if isinstance(value, list) else value[part]
        if isinstance(value, list) and value and isinstance(value[0], list):
            value = [each for inner in value for each in inner]
    return {key for each in (value if isinstance(value, list) else [value]) for key in each}


@pytest.mark.parametrize("release", VERSIONS)
@pytest.mark.parametrize("name", BUILDS)
def test_all_that_is_built_keeps_the_schemas(name: str, release: str) -> None:
    for manifest in built(name):
        assert manifest["metadata"]["namespace"] == "tickcast"
        if manifest["kind"] not in CUSTOM_KEYS:
            validate(json.dumps(manifest), release)
            continue
        for path, known in CUSTOM_KEYS[manifest["kind"]].items():
            assert keys_at(manifest, path) <= known


def test_the_schemas_would_notice_a_mistyped_key() -> None:
    wrong = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"maxUnavailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.yaml")), ids=lambda file: str(file.relative_to(FOLDER)))
def test_a_manifest_is_whole_without_kustomize(file: Path) -> None:
    """The patches of an overlay are parts; all else could be applied as it stands."""
    (manifest,) = yaml.safe_load_all(file.read_text("utf-8"))
    assert {"apiVersion", "kind"} <= manifest.keys()
    if manifest["kind"] in ("Kustomization", "Component"):
        listed = [*manifest.get("resources", []), *manifest.get("components", [])]
        listed += [each["path"] for each in manifest.get("patches", []) if "path" in each]
        listed += [each for maker in manifest.get("configMapGenerator", []) for each in maker["files"]]
        assert all((file.parent / each).exists() for each in listed)
        here = {each.name for each in file.parent.iterdir() if each.is_file()} - {"kustomization.yaml"}
        assert here <= set(listed), "a file that nothing takes"
    elif file.parent.name == "base":
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", BUILDS)
def test_environment_and_file_are_settings_and_each_pod_is_an_instance(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = container_of(name)
    (instance,) = (each for each in container["env"] if each["name"] == "TICKCAST_KAFKA__INSTANCE_ID")
    assert instance["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    settings = settings_of(name, container, tmp_path, monkeypatch)
    assert settings.kafka.instance_id == "tickcast-0"
    assert container["ports"] == [{"name": "metrics", "containerPort": settings.metrics.port}]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    assert f"{Path(container['args'][-1]).parent}" in mounts
    assert str(settings.model.bundles) in mounts
    assert settings.model.bundle.parent == settings.model.bundles
    secrets = [value for value in settings.kafka.security.model_dump().values() if isinstance(value, Path)]
    assert all(str(file.parent) in mounts for file in secrets)
    assert pod_of(name)["enableServiceLinks"] is False


def test_variables_that_service_links_would_set_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why they are off: the Service of the base is called tickcast."""
    monkeypatch.setenv("TICKCAST_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(SettingsError, match="TICKCAST_SERVICE_HOST"):
        load_settings()


def test_probes_ask_what_the_daemon_answers() -> None:
    container = container_of("base")
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), Health(60.0))
    try:
        codes = {path: status(f"http://127.0.0.1:{server.port}{path}") for path in paths.values()}
    finally:
        server.close()
    assert codes == {"/livez": 200, "/readyz": 503}  # it lives, and is starting


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("name", BUILDS)
def test_a_pod_has_the_time_that_the_daemon_may_take_to_stop(name: str) -> None:
    assert pod_of(name)["terminationGracePeriodSeconds"] > DEADLINE_SECONDS + LOOK_SECONDS + LAST_WORDS_SECONDS


@pytest.mark.parametrize("name", BUILDS)
def test_pods_have_no_rights_that_they_do_not_need(name: str) -> None:
    pods = [pod_of(name), *(each["spec"] for each in built(name) if each["kind"] == "Pod")]
    user, group = map(int, last("serve", "USER").split(":"))
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, user, group)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
            assert container["image"].endswith(f"tickcast:{version('tickcast')}")


@pytest.mark.parametrize("name", BUILDS)
def test_the_parts_find_the_pods_and_only_these(name: str) -> None:
    stateful = one(name, "StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    others = [each["metadata"]["labels"] for each in built(name) if each["kind"] == "Pod"]
    selectors = [
        stateful["spec"]["selector"]["matchLabels"],
        one(name, "Service")["spec"]["selector"],
        one(name, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(name, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["spec"]["selector"]["matchLabels"] for each in built(name) if each["kind"] == "PodMonitor"),
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in others)
    assert stateful["spec"]["serviceName"] == one(name, "Service")["metadata"]["name"]
    assert stateful["spec"]["podManagementPolicy"] == "Parallel"


@pytest.mark.parametrize("name", BUILDS)
def test_pods_take_the_settings_that_were_built(name: str) -> None:
    """The name holds a hash of the file: another file rolls the pods."""
    settings, claim = one(name, "ConfigMap")["metadata"]["name"], one(name, "PersistentVolumeClaim")["metadata"]["name"]
    assert settings.startswith("tickcast-")
    for pod in [pod_of(name), *(each["spec"] for each in built(name) if each["kind"] == "Pod")]:
        volumes = {each["name"]: each for each in pod["volumes"]}
        assert volumes["settings"]["configMap"]["name"] == settings
        assert volumes["bundles"]["persistentVolumeClaim"]["claimName"] == claim


def test_daemons_read_bundles_and_operators_write_them() -> None:
    (toolbox,) = one("overlays/production", "Pod")["spec"]["containers"]
    read_only = [
        next(each.get("readOnly", False) for each in container["volumeMounts"] if each["name"] == "bundles")
        for container in (container_of("overlays/production"), toolbox)
    ]
    assert read_only == [True, False]


def test_metrics_may_be_scraped_and_brokers_be_reached() -> None:
    port = container_of("base")["ports"][0]
    assert one("overlays/podmonitor", "PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"] == port["name"]
    policy = one("base", "NetworkPolicy")["spec"]
    assert [each["port"] for rule in policy["ingress"] for each in rule["ports"]] == [port["name"]]
    assert {each["port"] for rule in policy["egress"] for each in rule["ports"]} >= {53, 9092}


@pytest.mark.parametrize("name", ["overlays/keda", "overlays/production"])
def test_keda_follows_the_lag_of_our_group_slowly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = one(name, "ScaledObject")["spec"]
    (trigger,) = spec["triggers"]
    settings = settings_of(name, container_of(name), tmp_path, monkeypatch)
    asked = trigger["metadata"]
    assert asked["bootstrapServers"] == settings.kafka.bootstrap_servers
    assert (asked["consumerGroup"], asked["topic"]) == (settings.kafka.group_id, settings.topics.ticks)
    assert asked["offsetResetPolicy"] == settings.kafka.auto_offset_reset
    assert all(isinstance(value, str) for value in asked.values())
    assert ("authenticationRef" in trigger) == (settings.kafka.security.mechanism is not None)
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"] == PARTITIONS_DEFAULT
    assert "replicas" not in one(name, "StatefulSet")["spec"], "an apply would set KEDA's number back"
    for way in spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"].values():
        assert way["stabilizationWindowSeconds"] >= 300
        assert all(each["value"] == 1 and each["periodSeconds"] >= 600 for each in way["policies"])
