"""A host of its own for every test: a network namespace that ends with it, with named ones as containers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podnet.cni.plugin.machine import Machine
from podnet.cni.plugin.main import run
from podnet.kernel.netns import anonymous


class Host:
    """What a runtime does with the plugin, and what other tools see of it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.machine: Callable[[], Machine] = Machine

    def call(
        self, command: str, conf: dict[str, Any], container: str = "c1", ifname: str = "eth0", **environ: str
    ) -> tuple[int, Any]:
        """Exit code, and what was printed (``None`` for nothing)."""
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": ifname,
            "CNI_PATH": "/nowhere",
        } | environ
        code, output = run(variables, lambda: json.dumps(conf).encode(), state=str(self.state), machine=self.machine)
        return code, json.loads(output) if output else None

    def raw(self, environ: dict[str, str], data: bytes) -> tuple[int, bytes]:
        """A call with whatever is given, and what is missing as for c1; exit code, and what was printed."""
        base = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere"}
        return run(base | environ, lambda: data, state=str(self.state), machine=self.machine)

    def add(self, conf: dict[str, Any], container: str = "c1", ifname: str = "eth0", **environ: str) -> Any:
        code, answer = self.call("ADD", conf, container, ifname, **environ)
        assert code == 0, answer
        return answer

    def delete(self, conf: dict[str, Any], container: str = "c1", ifname: str = "eth0", **environ: str) -> None:
        assert self.call("DEL", conf, container, ifname, **environ) == (0, None)

    def tool(self, *argv: str) -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def ip(self, *arguments: str, netns: str = "") -> list[dict[str, Any]]:
        inside = ["-n", netns] if netns else []
        found: list[dict[str, Any]] = json.loads(self.tool("ip", "-j", "-d", *inside, *arguments) or "[]")
        return found

    def link(self, name: str, netns: str = "") -> dict[str, Any]:
        return next(each for each in self.ip("address", netns=netns) if each["ifname"] == name)

    def addresses(self, name: str, netns: str = "") -> list[str]:
        found = self.link(name, netns)["addr_info"]
        return [f"{each['local']}/{each['prefixlen']}" for each in found if each["scope"] == "global"]

    def routes(self, netns: str = "") -> set[tuple[str, str]]:
        rows = self.ip("-4", "route", netns=netns) + self.ip("-6", "route", netns=netns)
        return {(row["dst"], row.get("gateway", "")) for row in rows if row.get("protocol") != "kernel"}

    def elements(self) -> set[str]:
        """The addresses that are masqueraded, in all tables."""
        rows = json.loads(self.tool("nft", "-j", "list", "ruleset"))["nftables"]
        return {each[0] for row in rows if "map" in row for each in row["map"].get("elem", [])}

    def snapshot(self) -> tuple[str, ...]:
        """All that an ADD could leave, on the host and in c1."""
        links = [sorted(each["ifname"] for each in self.ip("link", netns=name)) for name in ("", "c1")]
        addresses = [sorted(self.addresses(name)) for name in links[0]]
        ledger = [self.ledger(table) for table in ("holder", "lease", "part", "element", "port")]
        return tuple(map(str, (links, addresses, self.routes(), self.tool("nft", "list", "ruleset"), ledger)))

    def ledger(self, table: str) -> list[tuple[Any, ...]]:
        import sqlite3
        from contextlib import closing

        path = self.state / "podnet.sqlite"
        if not path.exists():
            return []
        with closing(sqlite3.connect(path)) as db:
            return list(db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3"))  # noqa: S608 - a name of ours


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with the containers c1, c2 and c3."""
    names = ("c1", "c2", "c3")
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with anonymous():
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield Host(tmp_path / "state")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
def outside(host: Any) -> Iterator[Any]:
    """The host with a client outside, in namespace c3."""
    host.tool("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", "c3")
    for netns, v4, v6 in ((), "192.0.2.1/24", "fd99::1/64"), (("-n", "c3"), "192.0.2.2/24", "fd99::2/64"):
        host.tool("ip", *netns, "address", "add", v4, "dev", "up0")
        host.tool("ip", *netns, "-6", "address", "add", v6, "dev", "up0", "nodad")
        host.tool("ip", *netns, "link", "set", "up0", "up")
    host.tool("ip", "-n", "c3", "link", "set", "lo", "up")
    yield host
    host.tool("ip", "link", "delete", "up0")


@pytest.fixture
def conf() -> dict[str, Any]:
    """A network of both families, as a cluster has it."""
    return {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "podnet",
        "bridge": "br0",
        "isDefaultGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/29"}], [{"subnet": "fd00:1::/64"}]]},
    }
