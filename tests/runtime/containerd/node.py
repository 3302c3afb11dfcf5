"""A node: containerd with its CRI plugin on a machine of its own, and podnet as its network plugin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cri import CRI
from image import NAME
from own_machine import OwnMachine, until

__all__ = ["Node", "Pod"]

SOCKET = "/run/containerd/containerd.sock"
_CONFIG = """
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  # Neither needs what a container that runs these tests may lack: CAP_SYS_RESOURCE, an AppArmor that can be loaded.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/run/cni/bin"
    conf_dir = "/run/cni/net.d"
"""


@dataclass(frozen=True)
class Pod:
    """A sandbox: its id, what it was made with, its addresses, and the path of its network namespace."""

    id: str
    config: dict[str, Any]
    addresses: tuple[str, ...]
    netns: str


@dataclass
class Node:
    """What a kubelet does, and what other tools see of it."""

    machine: OwnMachine
    folder: Path
    cgroup: str
    _process: subprocess.Popen[bytes] | None = None
    _pids: set[int] = field(default_factory=set)

    def start(self) -> None:
        """Start containerd, and wait until it answers."""
        (self.machine.path("/run") / "containerd.toml").write_text(_CONFIG.format(socket=SOCKET, image=NAME))
        self._process = self.machine.start("containerd", "-c", "/run/containerd.toml", log=self.log)
        until(self._answers, f"containerd answers; its log is {self.log}")

    @property
    def log(self) -> Path:
        return self.folder / "containerd.log"

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return self.machine.run("ctr", "-a", SOCKET, "version", check=False).returncode == 0

    def kill(self) -> None:
        """End containerd as a crash does; its shims and pods live on."""
        assert self._process is not None
        # The process that the test has started is nsenter; containerd is its child.
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)
        self._process.wait(30)

    def load(self, archive: Path) -> None:
        """Import the image."""
        self.machine.run("ctr", "-a", SOCKET, "-n", "k8s.io", "images", "import", "--snapshotter", "native", archive)

    def configure(self, conflist: dict[str, Any]) -> None:
        """Write the network's configuration as an installer should: in one step."""
        folder = self.machine.path("/run/cni/net.d")
        (folder / ".10-pods.new").write_text(json.dumps(conflist))
        (folder / ".10-pods.new").rename(folder / "10-pods.conflist")

    def cri(self) -> CRI:
        """A connection of one's own."""
        return CRI(str(self.machine.path(SOCKET)))

    def network_ready(self) -> tuple[bool, str]:
        """The condition NetworkReady, which kubelet polls, and its message."""
        with self.cri() as cri:
            conditions = cri.call("Status")["status"]["conditions"]
        found = next(each for each in conditions if each["type"] == "NetworkReady")
        return found.get("status", False), found.get("message", "")

    def network_config(self) -> str:
        """The network configuration that containerd has read."""
        with self.cri() as cri:
            return str(cri.call("Status", verbose=True)["info"]["cniconfig"])

    def run_pod(self, name: str, **config: Any) -> Pod:
        """RunPodSandbox and PodSandboxStatus. Raises ``CRIError``."""
        whole = {
            "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "default", "attempt": 0},
            "hostname": name,
            "log_directory": f"/run/log/{name}",
            "dns_config": {"servers": ["10.96.0.10"], "searches": ["default.svc.cluster.local"]},
            "labels": {"app": name},
            "linux": {"cgroup_parent": self.cgroup},
        } | config
        with self.cri() as cri:
            sandbox = cri.call("RunPodSandbox", config=whole)["pod_sandbox_id"]
            return self._pod(sandbox, whole, cri.call("PodSandboxStatus", pod_sandbox_id=sandbox, verbose=True))

    def _pod(self, sandbox: str, config: dict[str, Any], answer: dict[str, Any]) -> Pod:
        network = answer["status"]["network"]
        addresses = [network["ip"], *(each["ip"] for each in network.get("additional_ips", []))]
        spaces = json.loads(answer["info"]["info"])["runtimeSpec"]["linux"]["namespaces"]
        netns = next(each["path"] for each in spaces if each["type"] == "network")
        return Pod(sandbox, config, tuple(addresses), netns)

    def start_container(self, pod: Pod, *command: str) -> str:
        """CreateContainer and StartContainer; the container's id."""
        config = {"metadata": {"name": "main"}, "image": {"image": NAME}, "command": command, "log_path": "main.log"}
        with self.cri() as cri:
            made = cri.call("CreateContainer", pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
            cri.call("StartContainer", container_id=made["container_id"])
        return str(made["container_id"])

    def execute(self, container: str, *command: str) -> str:
        """ExecSync; what the command printed."""
        import base64

        with self.cri() as cri:
            done = cri.call("ExecSync", container_id=container, cmd=command, timeout=30)
        said = [base64.b64decode(done.get(key, "")).decode() for key in ("stdout", "stderr")]
        assert done.get("exit_code", 0) == 0, f"{command}: {said}"
        return said[0]

    def stop_pod(self, pod: Pod) -> None:
        """StopPodSandbox, which ends the network too. Raises ``CRIError``."""
        with self.cri() as cri:
            cri.call("StopPodSandbox", pod_sandbox_id=pod.id)

    def remove_pod(self, pod: Pod) -> None:
        """RemovePodSandbox. Raises ``CRIError``."""
        with self.cri() as cri:
            cri.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    def pods(self) -> list[str]:
        """The ids of all sandboxes that containerd knows."""
        with self.cri() as cri:
            return [each["id"] for each in cri.call("ListPodSandbox").get("items", [])]
