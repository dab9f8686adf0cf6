"""docker-compose.yml: valid, and held to rules that no schema knows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import pytest
import typer
import yaml

from daemon.cli.main import app
from daemon.config import ENV_PREFIX, Settings, load_settings
from daemon.dev.broker_java import KAFKA_VERSION
from daemon.errors import SettingsError
from daemon.stopping import DEADLINE_SECONDS
from daemon.watchdog import LAST_WORDS_SECONDS
from tests.deploy.compose_file import FILE, ROOT, Service, read_file, services

SERVICES = services()
OURS = [service for service in SERVICES.values() if service.is_ours]
#: Has no port that could be asked, and ends by itself where it cannot go on.
UNCHECKED = {"market"}
#: The image writes its settings into folders of its own when it starts.
WRITES_ITS_ROOT = {"kafka"}

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
each_of_ours = pytest.mark.parametrize("service", OURS, ids=lambda service: service.name)


def settings_of(service: Service, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Load what a container of ours would: its environment over the file that is mounted for it."""
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    files = [mount.source for mount in service.mounts if mount.target in " ".join(service.command)]
    return load_settings(next((file for file in files if isinstance(file, Path)), None))


def test_the_file_keeps_the_compose_schema(tmp_path: Path) -> None:
    """The schema knows JSON, and so no merged keys: what is checked is what compose makes of them."""
    plain = tmp_path / "compose.json"
    plain.write_text(json.dumps(read_file()))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, str(plain)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    plain.write_text(json.dumps({"services": {"kafka": {"image": 7}}}))
    assert subprocess.run([*check, str(plain)], capture_output=True, check=False).returncode != 0


@each_service
def test_a_service_is_checked_or_runs_once(service: Service) -> None:
    disabled = service.content["healthcheck"].get("disable", False)
    assert disabled == (service.is_once or service.name in UNCHECKED)
    assert service.content["restart"] == ("no" if service.is_once else "unless-stopped")
    assert disabled != bool(service.healthcheck)


@each_service
def test_a_service_waits_for_what_the_other_can_give(service: Service) -> None:
    for name, condition in service.conditions.items():
        other = SERVICES[name]
        assert condition == ("service_completed_successfully" if other.is_once else "service_healthy")
        assert other.name not in UNCHECKED


@each_service
def test_a_service_has_no_rights_that_it_does_not_need(service: Service) -> None:
    content = service.content
    assert content["cap_drop"] == ["ALL"]
    assert content["security_opt"] == ["no-new-privileges:true"]
    assert content.keys().isdisjoint({"privileged", "cap_add", "network_mode", "pid", "user", "devices"})
    assert content.get("read_only", False) == (service.name not in WRITES_ITS_ROOT)
    assert not content.get("read_only") or content["tmpfs"] == ["/tmp"]
    assert not any("docker.sock" in mount.target for mount in service.mounts)


@each_service
def test_ports_are_open_to_this_machine_only(service: Service) -> None:
    for port in service.content.get("ports", []):
        host, outside, inside = port.split(":")
        assert (host, outside) == ("127.0.0.1", inside)


@each_service
def test_images_are_pinned_by_version(service: Service) -> None:
    tag = service.image.rpartition(":")[2]
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service.image
    if service.is_ours:
        assert tag == version("tickcast")
        target = service.content["build"]["target"]
        assert service.image.startswith("tickcast:" if target == "serve" else "tickcast-full:")


@each_service
def test_mounted_files_are_there_and_cannot_be_changed(service: Service) -> None:
    for mount in service.mounts:
        if isinstance(mount.source, Path):
            assert mount.source.exists()
            assert mount.read_only
        else:
            assert mount.source in read_file()["volumes"]


@each_of_ours
def test_a_container_of_ours_has_a_command_that_the_program_knows(service: Service) -> None:
    command, arguments = typer.main.get_command(app), service.command
    while commands := getattr(command, "commands", None):
        assert arguments[0] in commands
        command, arguments = commands[arguments[0]], arguments[1:]
    command.make_context("tickcast", list(arguments))  # parses, and runs nothing


@each_of_ours
def test_environment_and_file_of_a_container_are_settings(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(name.startswith(ENV_PREFIX) for name in service.environment)
    settings = settings_of(service, monkeypatch)
    if "--config" in " ".join(service.command):
        assert settings.kafka.bootstrap_servers == "kafka:19092"


def test_a_mistyped_variable_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Service("tickcast", SERVICES["tickcast"].content | {"environment": {"TICKCAST_KAFKA__INSTANCE": "0"}})
    with pytest.raises(SettingsError, match=r"kafka\.instance"):
        settings_of(broken, monkeypatch)


def test_the_parts_agree_on_folders_ports_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(SERVICES["tickcast"], monkeypatch)
    trained = next(each for each in SERVICES["train"].command if each.startswith("--out="))
    assert str(settings.model.bundle) == trained.removeprefix("--out=")
    assert settings.model.bundle.parent == settings.model.bundles
    assert SERVICES["history"].command[-1] == SERVICES["train"].command[1]
    assert SERVICES["kafka"].image == f"apache/kafka:{KAFKA_VERSION}"
    targets = yaml.safe_load((ROOT / "deploy/compose/targets/tickcast.yml").read_text())
    assert targets == [{"targets": [f"tickcast:{settings.metrics.port}"]}]
    assert f"127.0.0.1:{settings.metrics.port}/readyz" in SERVICES["tickcast"].healthcheck[-1]


def test_grafana_finds_prometheus_and_begins_with_a_dashboard_that_is_there() -> None:
    grafana = SERVICES["grafana"]
    places = {mount.target: mount.source for mount in grafana.mounts if isinstance(mount.source, Path)}
    home = PurePosixPath(grafana.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (places[str(home.parent)] / home.name).exists()
    (source,) = (places["/etc/grafana/provisioning"] / "datasources").glob("*.y*ml")
    (found,) = yaml.safe_load(source.read_text("utf-8"))["datasources"]
    assert found["url"] == "http://prometheus:9090"


@each_of_ours
def test_a_container_of_ours_has_the_time_that_the_daemon_may_take_to_stop(service: Service) -> None:
    seconds = float(service.content["stop_grace_period"].removesuffix("s"))
    assert seconds > DEADLINE_SECONDS + LAST_WORDS_SECONDS


def test_the_addresses_in_the_head_of_the_file_are_those_of_its_ports() -> None:
    head = FILE.read_text("utf-8").partition("name:")[0]
    ports = {
        port.removeprefix("127.0.0.1:").partition(":")[0]
        for s in SERVICES.values()
        for port in s.content.get("ports", [])
    }
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", head)) == ports - {"9464"}
