"""podman with its CNI back end on a machine of its own, and podnet as its network plugin."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image import NAME
from own_machine import OwnMachine

__all__ = ["Host"]

# The limits: podman asks for higher ones than a container that runs these tests may have.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/run/cni/bin"]
network_config_dir = "/run/cni/net.d"
default_network = "pods"
"""
_STORAGE = """
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""


@dataclass(frozen=True)
class Host:
    """What a user of podman does, and what other tools see of it. Nothing is read from ``/etc`` or a home."""

    machine: OwnMachine
    cgroup: str

    def prepare(self, archive: Path) -> None:
        """Write podman's configuration, and load the image."""
        for name, text in (("containers.conf", _CONTAINERS), ("storage.conf", _STORAGE)):
            (self.machine.path("/run") / name).write_text(text)
        policy = {"default": [{"type": "insecureAcceptAnything"}]}
        (self.machine.path("/run") / "policy.json").write_text(json.dumps(policy))
        (self.machine.path("/run") / "home").mkdir()
        self.podman("load", "--signature-policy", "/run/policy.json", "-i", archive)

    def configure(self, conflist: dict[str, Any]) -> None:
        """Write the network's configuration."""
        name = conflist["name"]
        (self.machine.path("/run/cni/net.d") / f"10-{name}.conflist").write_text(json.dumps(conflist))

    def podman(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman to its end."""
        environ = os.environ | {
            "CONTAINERS_CONF": "/run/containers.conf",
            "CONTAINERS_STORAGE_CONF": "/run/storage.conf",
            "HOME": "/run/home",
            "TMPDIR": "/run/home",
        }
        for name in ("CONTAINER_HOST", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            environ.pop(name, None)
        return self.machine.run("podman", *arguments, env=environ, check=check)

    def run(self, name: str, *options: str, command: tuple[str, ...] = ()) -> str:
        """``podman run``, in the background; the path of the container's network namespace."""
        self.podman("run", "--detach", "--name", name, "--cgroup-parent", self.cgroup, *options, NAME, *command)
        return str(self.settings(name)["SandboxKey"])

    def settings(self, name: str) -> dict[str, Any]:
        """What podman knows of a container's network."""
        found: dict[str, Any] = json.loads(self.podman("inspect", name).stdout)[0]["NetworkSettings"]
        return found

    def process(self, name: str) -> str:
        """The number of a container's first process."""
        return self.podman("inspect", "--format", "{{.State.Pid}}", name).stdout.strip()

    def remove(self, *names: str) -> None:
        """``podman rm`` of running containers."""
        self.podman("rm", "--force", "--time", "0", *names)
