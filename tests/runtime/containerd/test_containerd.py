"""containerd drives podnet as a kubelet has it do: run, reach, stop, remove, and nothing is left."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cri import CRIError
from node import Node, Pod
from own_machine import until

pytestmark = pytest.mark.kernel


def ping(node: Node, netns: str, address: str) -> None:
    """From within a namespace, by a program that is not the pod's."""
    node.machine.run("ping", "-c", "1", "-W", "20", address, netns=netns)


@pytest.fixture
def before(node: Node) -> dict[str, list[str]]:
    """What there is while a first pod runs: what all pods share is made by then."""
    node.run_pod("first")
    return node.machine.state()


def test_pods_reach_each_other_and_leave_nothing(node: Node, before: dict[str, list[str]]) -> None:
    pods = [node.run_pod("web"), node.run_pod("client")]
    assert [pod.addresses for pod in pods] == [("10.88.0.3", "fd00:88::3"), ("10.88.0.4", "fd00:88::4")]
    for pod in pods:
        assert node.machine.address("eth0", pod.netns) == [f"{pod.addresses[0]}/24", f"{pod.addresses[1]}/64"]
    web, client = pods
    for address in (*web.addresses, "10.88.0.1", "fd00:88::1"):
        ping(node, client.netns, address)
        ping(node, "", address)

    served = node.start_container(web, "httpd", "-f", "-p", "80", "-h", "/etc")
    asking = node.start_container(client, "sleep", "1000")
    assert node.execute(asking, "hostname") == "client\n"
    node.execute(asking, "ping", "-c", "1", "-W", "20", web.addresses[0])
    node.execute(served, "ping6", "-c", "1", "-W", "20", client.addresses[1])
    until(lambda: node.machine.out("ss", "-Hltn", "sport", "80", netns=web.netns), "the server listens")
    answer = node.execute(asking, "wget", "-qO-", f"http://{web.addresses[0]}/hostname")
    assert answer == "web\n"

    for pod in pods:
        node.stop_pod(pod)
        node.remove_pod(pod)
    assert node.machine.changes(before) == []


def test_a_pod_stopped_and_removed_many_times(node: Node, before: dict[str, list[str]]) -> None:
    pod = node.run_pod("web")
    for verb in (node.stop_pod, node.stop_pod, node.remove_pod, node.remove_pod):
        verb(pod)
    assert node.machine.changes(before) == []


def test_pods_at_once(node: Node, before: dict[str, list[str]]) -> None:
    def life(name: str) -> Pod:
        pod = node.run_pod(name)
        ping(node, pod.netns, "10.88.0.2")
        return pod

    with ThreadPoolExecutor(6) as pool:
        pods = list(pool.map(life, [f"pod{i}" for i in range(6)]))
        assert len({address for pod in pods for address in pod.addresses}) == 12
        list(pool.map(node.stop_pod, pods))
        list(pool.map(node.remove_pod, pods))
    assert node.machine.changes(before) == []


def fetch(node: Node, url: str, netns: str = "") -> str:
    return node.machine.out("timeout", "20", "busybox", "wget", "-qO-", url, netns=netns)


def mapped(host_port: int) -> dict[str, Any]:
    return {"port_mappings": [{"protocol": 0, "container_port": 80, "host_port": host_port}]}


@pytest.mark.parametrize("by", ["podnet", "portmap"])
def test_the_host_port_answers_until_the_pod_is_stopped(node: Node, conflist: dict[str, Any], by: str) -> None:
    """Mapped by podnet itself, and by the reference plugin that is chained behind it."""
    if by == "portmap":
        del conflist["plugins"][0]["capabilities"]["portMappings"]
        conflist["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
        node.configure(conflist)
        until(lambda: '"type":"portmap"' in node.network_config().replace(" ", ""), "containerd has read it")
    node.run_pod("first", **mapped(8000))
    before = node.machine.state()
    pod, other = node.run_pod("web", **mapped(8080)), node.run_pod("other")
    node.start_container(pod, "httpd", "-f", "-p", "80", "-h", "/etc")
    until(lambda: node.machine.out("ss", "-Hltn", "sport", "80", netns=pod.netns), "the server listens")
    for netns, address in (("", "10.88.0.1"), ("", "127.0.0.1"), (other.netns, "10.88.0.1"), (pod.netns, "10.88.0.1")):
        assert fetch(node, f"http://{address}:8080/hostname", netns) == "web\n", (
            f"from {netns or 'the node'} to {address}"
        )
    if by == "podnet":  # another pod cannot have the port, and is told whose it is
        with pytest.raises(CRIError, match=pod.id):
            node.run_pod("rival", **mapped(8080))
    for each in (pod, other):
        node.stop_pod(each)
        node.remove_pod(each)
    assert node.machine.changes(before) == []


def test_a_pod_is_shaped_as_its_annotations_say(node: Node, before: dict[str, list[str]]) -> None:
    """containerd makes the capability ``bandwidth`` of them, with keys in its own letters and a burst of its own."""
    rates = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "20M"}
    pod = node.run_pod("web", annotations=rates)
    queues = {row["dev"]: row for row in node.machine.json("tc", "-j", "qdisc") if row["kind"] in ("tbf", "htb")}
    (host,) = [name for name in queues if name.startswith("veth")]
    (ifb,) = queues.keys() - {host}
    assert [queues[name]["options"]["rate"] for name in (host, ifb)] == [10_000_000 // 8, 20_000_000 // 8]
    ping(node, pod.netns, "10.88.0.2")
    node.stop_pod(pod)
    node.remove_pod(pod)
    assert node.machine.changes(before) == []


def test_a_pod_for_which_no_address_is_left(node: Node, conflist: dict[str, Any]) -> None:
    conflist["plugins"][0]["ipam"] = {"type": "podnet", "subnet": "10.88.0.0/30"}
    node.configure(conflist)
    until(lambda: "10.88.0.0/30" in node.network_config(), "containerd has read the configuration")
    pod = node.run_pod("first")
    before = node.machine.state()
    with pytest.raises(CRIError, match="no IP addresses available in range set"):
        node.run_pod("second")
    assert node.machine.changes(before) == []
    node.stop_pod(pod)
    assert node.run_pod("third").addresses == ("10.88.0.2",)


def test_versions_a_runtime_does_not_know(node: Node, conflist: dict[str, Any]) -> None:
    """containerd 1.6 knows CNI 1.0.0, and says so; a list with ``cniVersions`` serves it and newer ones alike."""
    node.configure(conflist | {"cniVersion": "1.1.0"})
    until(lambda: '"CNIVersion":"1.1.0"' in node.network_config(), "containerd has read the configuration")
    before = node.machine.state()
    with pytest.raises(CRIError, match=r'unsupported CNI result version "1\.1\.0"'):
        node.run_pod("newer")
    after = node.machine.state()
    assert (after["namespaces"], after["reservations"]) == ([], [])
    assert set(after["links"]) - set(before["links"]) == {"cni0"}
    node.configure(conflist | {"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"]})
    until(lambda: '"CNIVersion":"1.0.0"' in node.network_config(), "containerd has read the configuration")
    assert node.run_pod("both").addresses == ("10.88.0.3", "fd00:88::3")


# -- crashes --------------------------------------------------------------------------------------------------


def recorded(node: Node, executable: Path) -> Path:
    """Have every call of the plugin written down, with the namespace that it was given."""
    calls = node.machine.path("/run/cni/calls")
    wrapper = node.machine.path("/run/cni/bin/podnet")
    wrapper.with_name("new").write_text(
        f'#!/bin/sh\necho "$CNI_COMMAND netns=$CNI_NETNS" >>/run/cni/calls\nexec {executable}\n'
    )
    wrapper.with_name("new").chmod(0o755)
    wrapper.with_name("new").rename(wrapper)
    return calls


def test_containerd_killed_and_started_again(node: Node, before: dict[str, list[str]]) -> None:
    pod = node.run_pod("web")
    node.kill()
    ping(node, pod.netns, "10.88.0.2")  # a network needs no runtime
    node.start()
    assert pod.id in node.pods()
    ping(node, pod.netns, "10.88.0.2")
    later = node.run_pod("later")
    assert later.addresses == ("10.88.0.4", "fd00:88::4")
    for each in (pod, later):
        node.stop_pod(each)
        node.remove_pod(each)
    assert node.machine.changes(before) == []


def test_del_comes_late_and_without_a_namespace(node: Node, before: dict[str, list[str]], way: Any) -> None:
    """The namespace is gone with the crash: containerd sends DEL with an empty CNI_NETNS, and all is cleaned."""
    calls = recorded(node, way.executable)
    pod = node.run_pod("web")
    node.kill()
    node.machine.run("umount", pod.netns)
    node.machine.run("rm", pod.netns)
    node.start()
    node.stop_pod(pod)
    node.remove_pod(pod)
    assert calls.read_text().splitlines()[0].startswith("ADD netns=/var/run/netns/cni-")
    assert "DEL netns=" in calls.read_text().splitlines()
    assert node.machine.changes(before) == []


def test_what_a_crash_in_the_middle_of_add_leaves_is_collected(node: Node) -> None:
    """containerd forgets a pod that it was making, for ever; ``podnet cni gc`` finds what its plugin has made."""
    first = node.run_pod("first")
    before = node.machine.state()
    with ThreadPoolExecutor(4) as pool:
        started = [pool.submit(node.run_pod, f"pod{i}") for i in range(4)]
        until(lambda: len(node.machine.files("/run/netns")) > 2, "pods are being made")
        node.kill()
        for each in started:
            each.exception(60)
    node.start()
    with node.cri() as cri:
        for sandbox in node.pods():
            if sandbox != first.id:
                cri.call("StopPodSandbox", pod_sandbox_id=sandbox)
                cri.call("RemovePodSandbox", pod_sandbox_id=sandbox)
    # Calls that containerd had started before it was killed come to their end.
    until(lambda: not [each for each in node.machine.processes() if "/cni/bin/podnet" in each], "no plugin runs")
    for netns in node.machine.files("/run/netns"):  # those of such pods stay behind; a kubelet ends by a reboot
        if f"/run/netns/{netns}" not in first.netns:
            node.machine.run("ip", "netns", "delete", netns)
    # Without a word about what is valid: by the namespaces in the cache, which containerd has written.
    collect = ("podnet", "cni", "gc", "--conf", "/run/cni/net.d", "--path", "/run/cni/bin")
    node.machine.run(sys.executable, "-m", *collect)
    after = node.machine.state()
    for topic in ("links", "rules", "routes", "reservations"):
        assert after[topic] == before[topic]
    ping(node, "", first.addresses[0])
