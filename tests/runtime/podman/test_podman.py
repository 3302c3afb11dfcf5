"""podman's CNI back end with podnet: run, reach, reload, remove, and nothing is left."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from host import Host
from own_machine import until

pytestmark = pytest.mark.kernel

SERVER = ("httpd", "-f", "-p", "80", "-h", "/etc")


def fetch(host: Host, url: str, netns: str = "") -> str:
    return host.machine.out("timeout", "20", "busybox", "wget", "-qO-", url, netns=netns)


def listening(host: Host, netns: str) -> None:
    until(lambda: host.machine.out("ss", "-Hltn", "sport", "80", netns=netns), "the server listens")


def proved_by_packets(host: Host, client: str) -> None:
    """``podnet test`` on containers that are not its own: one by the process in it, one by its namespace's path."""
    command = (sys.executable, "-m", "podnet", "test", "-o", "json", "--namespaces", host.process("web"))
    run = json.loads(host.machine.out(*command, "--namespaces", client))
    assert run["summary"]["failed"] == 0
    seen = {(r["protocol"], r["family"], r["source"]) for r in run["results"] if r["from"] != r["to"]}
    assert seen == {
        (protocol, family, address)
        for protocol in ("icmp", "tcp", "udp")
        for family, addresses in (("ipv4", ("10.89.0.3", "10.89.0.4")), ("ipv6", ("fd00:89::3", "fd00:89::4")))
        for address in addresses
    }


def test_containers_reach_each_other_and_leave_nothing(host: Host) -> None:
    host.run("first")
    before = host.machine.state()
    web, client = host.run("web", command=SERVER), host.run("client")
    assert host.machine.address("eth0", web) == ["10.89.0.3/24", "fd00:89::3/64"]
    found = host.settings("web")["Networks"]["pods"]
    assert (found["IPAddress"], found["Gateway"], found["GlobalIPv6Address"]) == (
        "10.89.0.3", "10.89.0.1", "fd00:89::3",
    )  # fmt: skip
    for address in ("10.89.0.3", "10.89.0.2", "10.89.0.1"):
        host.podman("exec", "client", "ping", "-c", "1", "-W", "20", address)
    host.podman("exec", "client", "ping6", "-c", "1", "-W", "20", "fd00:89::3")
    host.machine.run("ping", "-c", "1", "-W", "20", "10.89.0.4")
    listening(host, web)
    assert fetch(host, "http://10.89.0.3/hostname", client) == fetch(host, "http://[fd00:89::3]/hostname")
    proved_by_packets(host, client)
    host.remove("web", "client")
    assert host.machine.changes(before) == []


@pytest.mark.parametrize("by", ["podnet", "portmap"])
def test_published_ports_answer_until_removal(host: Host, conflist: dict[str, Any], by: str) -> None:
    """Also after ``podman network reload``, which goes by libcni's result cache: it has deleted all rules before."""
    if by == "portmap":
        del conflist["plugins"][0]["capabilities"]["portMappings"]
        conflist["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
        host.configure(conflist)
    host.run("first", "--publish", "8000:80")
    before = host.machine.state()
    web = host.run("web", "--publish", "8080:80", "--publish", "127.0.0.1:8081:80/tcp", command=SERVER)
    client = host.run("client")
    listening(host, web)
    name = fetch(host, "http://10.89.0.3/hostname")
    places = [("", "10.89.0.1:8080"), ("", "127.0.0.1:8080"), ("", "127.0.0.1:8081"), (client, "10.89.0.1:8080"),
              (web, "10.89.0.1:8080")]  # fmt: skip
    for netns, place in places:
        assert fetch(host, f"http://{place}/hostname", netns) == name, f"from {netns or 'the machine'} to {place}"
    host.machine.run("nft", "flush", "ruleset")
    host.podman("network", "reload", "--all")
    assert host.machine.address("eth0", web) == ["10.89.0.3/24", "fd00:89::3/64"]
    for netns, place in places:
        assert fetch(host, f"http://{place}/hostname", netns) == name, f"after reload, {netns or 'here'} to {place}"
    host.remove("web", "client")
    assert host.machine.changes(before) == []
    host.remove("first")
    assert "8000" not in host.machine.out("nft", "list", "ruleset")


def test_a_container_with_address_and_mac_of_its_own(host: Host) -> None:
    netns = host.run("web", "--ip", "10.89.0.77", "--mac-address", "02:00:00:00:00:77", "--network-alias", "www")
    assert host.machine.address("eth0", netns)[0] == "10.89.0.77/24"
    (link,) = host.machine.json("ip", "-j", "link", "show", "dev", "eth0", netns=netns)
    assert link["address"] == "02:00:00:00:00:77"
    refused = host.podman("run", "--ip", "10.89.0.77", "--cgroup-parent", host.cgroup, "podnet.test/busybox:1",
                          check=False)  # fmt: skip
    assert refused.returncode != 0
    assert "requested IP address 10.89.0.77 is not available in range set" in refused.stderr


def test_stop_and_start_and_a_network_more(host: Host, conflist: dict[str, Any]) -> None:
    """A container keeps nothing while it is stopped; connect and disconnect add and remove an interface."""
    plugin = conflist["plugins"][0] | {"bridge": "cni1", "ipam": {"type": "podnet", "subnet": "10.90.0.0/24"}}
    host.configure(conflist | {"name": "more", "plugins": [plugin]})
    host.run("first", "--network", "pods,more")
    before = host.machine.state()
    host.run("web")
    host.podman("network", "connect", "more", "web")
    netns = host.settings("web")["SandboxKey"]
    assert host.machine.address("eth1", netns) == ["10.90.0.3/24"]
    host.podman("network", "disconnect", "more", "web")
    assert [row["ifname"] for row in host.machine.json("ip", "-j", "link", netns=netns)] == ["lo", "eth0"]
    host.podman("stop", "--time", "0", "web")
    assert [each for each in host.machine.state()["reservations"] if each not in before["reservations"]] == []
    host.podman("start", "web")
    host.podman("exec", "web", "ping", "-c", "1", "-W", "20", "10.89.0.2")
    host.remove("web")
    assert host.machine.changes(before) == []


def test_containers_at_once(host: Host) -> None:
    host.run("first")
    before = host.machine.state()
    names = [f"c{number}" for number in range(5)]
    with ThreadPoolExecutor(5) as pool:
        spaces = list(pool.map(host.run, names))
        assert len({address for netns in spaces for address in host.machine.address("eth0", netns)}) == 10
        list(pool.map(host.remove, names))
    assert host.machine.changes(before) == []


def test_the_runtimes_side_reads_the_cache_that_podman_wrote(host: Host) -> None:
    """``podnet cni check`` goes by the file that libcni keeps, and names what is no longer there."""
    netns = host.run("web")
    (kept,) = [each for each in host.machine.files("/var/lib/cni/results") if each.startswith("pods-")]
    container = kept.split("-")[1]
    command = (sys.executable, "-m", "podnet", "cni", "check", "--container-id", container, "--path", "/run/cni/bin")
    assert "as it was made" in host.machine.out(*command)
    host.machine.run("ip", "link", "set", "eth0", "mtu", "1300", netns=netns)
    done = host.machine.run(*command, check=False)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 999)
    assert "mtu is 1300, should be 1500" in done.stderr


def test_podman_reads_the_cache_that_the_runtimes_side_wrote(host: Host) -> None:
    """``reload`` and ``rm`` go by libcni's file of an attachment, with configuration and ports: here it is ours."""
    host.run("first", "--publish", "8000:80")
    before = host.machine.state()
    netns = host.run("web", "--publish", "8080:80", command=SERVER)
    listening(host, netns)
    (name,) = [each for each in host.machine.files("/var/lib/cni/results")
               if each.startswith("pods-") and each not in before["results"]]  # fmt: skip
    capabilities = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
                    "ips": ["10.89.0.3", "fd00:89::3"]}  # fmt: skip

    def taken_over() -> None:
        """The same attachment, deleted and made again by ``podnet cni``."""
        place = (
            "--container-id",
            name.split("-")[1],
            "--path",
            "/run/cni/bin",
            "--conf",
            "/run/cni/net.d",
            "--netns",
            netns,
        )
        host.machine.run(sys.executable, "-m", "podnet", "cni", "del", *place)
        assert name not in host.machine.files("/var/lib/cni/results")
        host.machine.run(
            sys.executable, "-m", "podnet", "cni", "add", "--capability-args", json.dumps(capabilities), *place
        )

    taken_over()
    host.podman("network", "reload", "web")
    assert fetch(host, "http://10.89.0.1:8080/hostname") == fetch(host, "http://10.89.0.3/hostname")
    taken_over()
    host.remove("web")
    assert host.machine.changes(before) == []
