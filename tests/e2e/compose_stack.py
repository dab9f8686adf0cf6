"""The services of docker-compose.yml as processes of this machine, for want of a container engine.

Commands, environment, mounted files, health checks and the order by condition are those of the compose file. What is
put in the place of something else stands in the tables below and nowhere else.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from daemon.config import ENV_PREFIX
from daemon.dev.broker import free_port
from daemon.dev.broker_java import class_path, java_program
from daemon.dev.broker_properties import write_properties
from tests.deploy.compose_file import ROOT, Service, services
from tests.deploy.image_packages import only_packages_of

PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.5

#: Names of the network's hosts; all of them are this machine.
HOSTS = ("kafka:", "tickcast:", "0.0.0.0")
HERE = ("127.0.0.1:", "127.0.0.1:", "127.0.0.1")
#: Each port becomes a free one, the same in every service.
PORTS = ("19092", "9092", "9093", "9464", "9090", "8050")

#: The health check of the image asks the broker for its versions, and its class is not among the jars of a broker: this
#: asks for its cluster, at the address that the check names.
ASK_BROKER = "import sys, kafka; kafka.KafkaAdminClient(bootstrap_servers=sys.argv[2]).describe_cluster()"
#: What the programs of health checks are here.
PROGRAMS = {
    "python": [sys.executable],
    "wget": [sys.executable, "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[-1])"],
    "/opt/kafka/bin/kafka-broker-api-versions.sh": [sys.executable, "-c", ASK_BROKER],
}
#: The entry points of the images of others.
PROGRAMS_OF_IMAGES = {"prom/prometheus": ["prometheus"]}
#: That of ours: a Python that finds the packages of the image and no other, and the program.
START = "import sys; sys.path += {path!r}; from daemon.cli.main import main; main()"
#: Beside the heap of the file: without these the compilers of Java take both cores for ten seconds.
QUIET_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
#: Environment of the Kafka image that is no setting of the broker.
NO_SETTING = ("KAFKA_HEAP_OPTS",)


class Stack:
    """Services of the compose file in a folder; as a context manager all are stopped at the end.

    Parameters
    ----------
    directory : volumes, files and logs
    changed_arguments : arguments of commands that are to be others here
    """

    def __init__(self, directory: Path, changed_arguments: dict[str, str] | None = None) -> None:
        self._services = services()
        self._directory = directory
        self._changed = changed_arguments or {}
        ports: dict[str, str] = {}
        while len(ports) < len(PORTS):
            port = str(free_port())
            if port not in ports.values():
                ports[PORTS[len(ports)]] = port
        self._ports = ports
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._conditions = {
            "service_healthy": self.await_healthy,
            "service_completed_successfully": self.await_success,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def running(self) -> set[str]:
        """The services whose processes live."""
        return {name for name, process in self._processes.items() if process.poll() is None}

    def address(self, port: str) -> str:
        """Return what `127.0.0.1:PORT` of the compose file is here."""
        return f"127.0.0.1:{self._ports[port]}"

    def volume(self, name: str) -> Path:
        """Return the folder of a volume."""
        path = self._directory / "volumes" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, name: str) -> str:
        """Return what a service has written."""
        return (self._directory / f"{name}.log").read_text("utf-8", "replace")

    def up(self, name: str) -> None:
        """Start a service, after all that it waits for."""
        if name in self._processes:
            return
        service = self._services[name]
        for other, condition in service.conditions.items():
            self.up(other)
            self._conditions[condition](other)
        self._mount(service)
        command = self._kafka(service) if service.image.startswith("apache/kafka") else self._command(service)
        with (self._directory / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=self._environment(service),
                cwd=self._directory,
                start_new_session=True,
            )

    def down(self) -> None:
        """Stop and forget all services; the volumes stay."""
        for name in reversed(self._processes):
            self.stop(name)
        self._processes.clear()
        shutil.rmtree(self._directory / "roots", ignore_errors=True)

    def await_healthy(self, name: str) -> None:
        """Run a service's health check until it succeeds."""
        service = self._services[name]
        program, *arguments = service.healthcheck
        check = [*PROGRAMS[program], *(self._here(service, each) for each in arguments)]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while subprocess.run(check, capture_output=True, timeout=PATIENCE_SECONDS, check=False).returncode:
            assert self._processes[name].poll() is None, self.log(name)
            assert time.monotonic() < deadline, f"{name} did not get healthy: {self.log(name)}"
            time.sleep(LOOK_SECONDS)

    def await_success(self, name: str) -> None:
        """Wait until a service has ended well."""
        assert self._processes[name].wait(PATIENCE_SECONDS) == 0, self.log(name)

    def stop(self, name: str) -> int:
        """Stop a service as compose does, and return its exit code."""
        process = self._processes[name]
        seconds = float(self._services[name].content.get("stop_grace_period", "10s").removesuffix("s"))
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _command(self, service: Service) -> list[str]:
        arguments = [self._changed.get(each, each) for each in service.command]
        program = self._ours(service) if service.is_ours else PROGRAMS_OF_IMAGES[service.image.partition(":")[0]]
        return [*program, *(self._here(service, each) for each in arguments)]

    def _ours(self, service: Service) -> list[str]:
        target = service.content["build"]["target"]
        site = self._directory / f"packages-{target}"
        if not site.exists():
            only_packages_of(target, site)
        return [sys.executable, "-I", "-S", "-c", START.format(path=[str(ROOT), str(site)])]

    def _kafka(self, service: Service) -> list[str]:
        """Do as the image does: write the environment as properties, format the storage where it is new, start."""
        settings = {
            property_name(name): self._here(service, value)
            for name, value in service.environment.items()
            if name.startswith("KAFKA_") and name not in NO_SETTING
        }
        file = self._directory / "server.properties"
        write_properties(file, settings)
        java = [str(java_program()), *service.environment["KAFKA_HEAP_OPTS"].split(), *QUIET_JAVA, "-cp", class_path()]
        form = ["kafka.tools.StorageTool", "format", "-t", service.environment["CLUSTER_ID"], "-c", str(file)]
        done = subprocess.run([*java, *form], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return [*java, "kafka.Kafka", str(file)]

    def _environment(self, service: Service) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        given = {name: self._here(service, value) for name, value in service.environment.items()}
        return kept if service.name == "kafka" else kept | given

    def _mount(self, service: Service) -> None:
        """Lay a service's files and volumes below a root of its own."""
        for mount in service.mounts:
            place = self._place(service, mount.target)
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(mount.source, str):
                place.symlink_to(self.volume(mount.source), target_is_directory=True)
                continue
            for file in [mount.source] if mount.source.is_file() else sorted(mount.source.iterdir()):
                copy = place / file.relative_to(mount.source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(self._here(service, file.read_text("utf-8")), "utf-8")

    def _place(self, service: Service, path: str) -> Path:
        return self._directory / "roots" / service.name / path.lstrip("/")

    def _here(self, service: Service, text: str) -> str:
        """Say the same with this machine's names, ports and paths."""
        for name, here in zip(HOSTS, HERE, strict=True):
            text = text.replace(name, here)
        for port, free in self._ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        for mount in service.mounts:
            text = re.sub(rf"(?<![\w/]){re.escape(mount.target)}\b", str(self._place(service, mount.target)), text)
        return text


def property_name(variable: str) -> str:
    """Return the broker's property that a variable of the Kafka image sets."""
    name = variable.removeprefix("KAFKA_").lower()
    return name.replace("___", "-").replace("__", "\0").replace("_", ".").replace("\0", "_")
