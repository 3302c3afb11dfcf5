"""A machine and its containers as namespaces; chains of our and the reference plugins are run on it as libcni does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from podnet.cni.runtime import chain
from podnet.cni.runtime.cache import Container
from podnet.cni.runtime.chain import Runtime
from podnet.cni.runtime.conflist import NetworkList, parse
from podnet.kernel import netns

REFERENCE = Path("/usr/lib/cni")
PODS = ("beside-a", "beside-b", "beside-c")
NODE = "beside-node"


@dataclass
class Machine:
    """``run`` runs a verb in the node's namespace; tools other than ours look at what came of it."""

    folder: Path
    ports: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        plugin = self.folder / "bin" / "podnet"
        plugin.parent.mkdir()
        plugin.write_text(
            f"#!{sys.executable}\n"
            "import os, sys\n"
            "from podnet.cni.plugin.main import run\n"
            "from podnet.cni.spec.document import read\n"
            f"code, output = run(os.environ, read, state={str(self.folder / 'state')!r})\n"
            "os.write(1, output)\n"
            "sys.exit(code)\n"
        )
        plugin.chmod(0o755)

    @property
    def runtime(self) -> Runtime:
        return Runtime((str(self.folder / "bin"), str(REFERENCE)), str(self.folder / "cache"), 60.0)

    def container(self, pod: str = PODS[0], *, netns: str | None = None, ports: Any = None) -> Container:
        path = f"/run/netns/{pod}" if netns is None else netns
        capabilities = {"portMappings": self.ports if ports is None else ports}
        return Container(pod, path, "eth0", (("IgnoreUnknown", "1"),), capabilities)

    def network(self, *plugins: dict[str, Any], name: str = "net", version: str = "1.0.0") -> NetworkList:
        file = self.folder / f"{name}.conflist"
        file.write_text(json.dumps({"cniVersion": version, "name": name, "plugins": plugins}), encoding="utf-8")
        return parse(file.read_bytes(), str(file))

    def add(self, network: NetworkList, container: Container) -> dict[str, Any]:
        with netns.entered(NODE):
            found: dict[str, Any] = chain.add(self.runtime, network, container)
            return found

    def check(self, network: NetworkList, container: Container) -> None:
        with netns.entered(NODE):
            chain.check(self.runtime, network, container)

    def delete(self, network: NetworkList, container: Container) -> None:
        with netns.entered(NODE):
            chain.delete(self.runtime, network, container)

    def exec(self, verb: str, plugin: str, conf: dict[str, Any], pod: str = PODS[0], netns: str = "-") -> Any:
        """One plugin, called as a runtime calls it: its exit code, and what it printed as JSON."""
        path = self.folder / "bin" / plugin if plugin == "podnet" else REFERENCE / plugin
        variables = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": pod, "CNI_IFNAME": "eth0", "CNI_PATH": str(REFERENCE),
            "CNI_NETNS": f"/run/netns/{pod}" if netns == "-" else netns, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }  # fmt: skip
        done = subprocess.run(
            ["ip", "netns", "exec", NODE, str(path)],
            input=json.dumps(conf), env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None

    def tool(self, *argv: str) -> str:
        return subprocess.run(["ip", "netns", "exec", NODE, *argv], capture_output=True, text=True, check=True).stdout

    def ip(self, *arguments: str, pod: str = NODE) -> list[dict[str, Any]]:
        done = subprocess.run(["ip", "-j", "-d", "-n", pod, *arguments], capture_output=True, text=True, check=True)
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return found

    def links(self, pod: str = NODE) -> set[str]:
        return {each["ifname"] for each in self.ip("link", pod=pod)}

    def rules(self) -> str:
        """All rules of the node, those of iptables-nft included."""
        return self.tool("nft", "list", "ruleset")

    def ipam(self, subnet: str = "10.88.0.0/24", **keys: Any) -> dict[str, Any]:
        folder = str(self.folder / "ipam")
        routes = [{"dst": "0.0.0.0/0"}]
        return {"type": "host-local", "dataDir": folder, "ranges": [[{"subnet": subnet}]], "routes": routes} | keys

    @property
    def reserved(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "ipam").glob("*/10.*"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if not (REFERENCE / "bridge").exists() or shutil.which("iptables") is None:
        pytest.skip("needs Debian's containernetworking-plugins and iptables")
    try:
        for name in (NODE, *PODS):
            subprocess.run(["ip", "netns", "add", name], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield Machine(tmp_path)
    finally:
        for name in (NODE, *PODS):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
