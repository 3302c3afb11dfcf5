"""impair, link, node, partition and heal on a running lab: what packets see of them, and that nothing is left."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from lab_cli import Topology, clean, podnet, proved, succeeds, two_nodes, write
from lab_kernel import Snapshot, differences, eventually, inside, run, snapshots

pytestmark = pytest.mark.kernel


def three_nodes() -> Topology:
    lab = two_nodes(ipFamily="dual")
    lab["nodes"].append({"name": "node3"})
    lab["pods"].append({"name": "far", "node": "node3", "containers": [{"name": "main", "command": ["sleep", "600"]}]})
    return lab


def failing() -> set[str]:
    """The pairs that do not reach each other, as NAME-NAME in the order of the alphabet."""
    rows = podnet("test", "lab", "--protocol", "icmp", "-o", "json").json["results"]
    return {"-".join(sorted((row["from"], row["to"]))) for row in rows if not row["passed"]}


def pairs(some: set[str], others: set[str]) -> set[str]:
    """Each of ``some`` with each of ``others``; the model asks nothing of two nodes."""
    return {
        "-".join(sorted((one, other)))
        for one in some
        for other in others
        if one != other and not (one.startswith("node") and other.startswith("node"))
    }


def as_before(before: dict[str, Snapshot]) -> None:
    """Nothing at all is other than before; the kernel tells a carrier that came back up to a second later."""
    deadline = time.monotonic() + 30
    while (found := differences(before, snapshots("lab"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == []


ALL = {"node1", "node2", "node3", "web", "api", "db", "far"}
ONE, TWO, THREE = {"node1", "web", "api"}, {"node2", "db"}, {"node3", "far"}

# A link that is down has no IPv6 address: what has it does not even reach itself by it.
# (what it shows, the command, the one that undoes it, who does not reach whom, what status says)
TABLE = [
    ("a pod's link", "link web down", "link web up", pairs({"web"}, ALL) | {"web-web"}, "web:eth0: down"),
    ("a node's uplink", "link node2 down", "link node2:eth0 up", pairs(TWO, ONE | THREE) | {"db-node2"},
     "node2:eth0: down"),
    ("a bridge", "link node1:podnet0 down", "link node1:podnet0 up", pairs({"web", "api"}, ALL), "node1:podnet0: down"),
    ("a node", "node node3 stop", "node node3 start", pairs(THREE, ONE | TWO) | {"far-node3"}, "node3: stopped"),
    ("two sides", "partition node1,node2 node3", "heal", pairs(THREE, ONE | TWO), "partition: node1,node2 | node3"),
    ("two of three", "partition node1 node2", "heal", pairs(ONE, TWO), "partition: node1 | node2"),
    ("three sides", "partition node1 node2 node3", "heal --all", pairs(ONE, TWO | THREE) | pairs(TWO, THREE),
     "partition: node1 | node2 | node3"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "undo", "lost", "said"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_broken_and_undone(command: str, undo: str, lost: set[str], said: str, tmp_path: Path) -> None:
    file = write(tmp_path, three_nodes())
    succeeds("up", file)
    before = snapshots("lab")
    assert succeeds(*command.split()).out == f"lab lab: {said}\n"
    assert failing() == lost
    clean()
    assert said in succeeds("status", "lab").out
    assert "nothing to change" in succeeds("up", file).out
    assert [each["what"] for each in succeeds("status", "lab", "-o", "json").json["faults"]] == [said]
    assert succeeds(*undo.split()).out == "lab lab: no faults\n"
    clean()
    as_before(before)
    proved()


def test_a_stopped_nodes_containers_end_and_start_again(tmp_path: Path) -> None:
    succeeds("up", write(tmp_path, three_nodes()))

    def running() -> list[str]:
        pods = succeeds("status", "lab", "-o", "json").json["pods"]
        return [c["state"] for pod in pods for c in pod["containers"]]

    assert running() == ["running"]
    succeeds("node", "node3", "stop")
    assert running() == ["not running"]
    succeeds("node", "node3", "start")
    assert running() == ["running"]
    clean()


def qdiscs(netns: str, dev: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(run(netns, "tc", "-j", "qdisc", "show", "dev", dev))
    return [row for row in rows if row["kind"] != "noqueue"]


def test_a_rate_as_tc_sees_it_and_as_packets_feel_it(tmp_path: Path) -> None:
    file = write(tmp_path, two_nodes())
    succeeds("up", file)
    before = snapshots("lab")
    succeeds("impair", "node1", "--rate", "800kbit")
    [row] = qdiscs("lab.node1", "eth0")
    assert (row["kind"], row["options"]["rate"]) == ("tbf", 100_000)  # type: ignore[index] - JSON, bytes per second
    # 12 packets of 1,000 bytes are 0.12 s of it; the bucket holds 1,600 bytes.
    db = json.loads(run("lab.db", "ip", "-j", "-4", "address", "show", "dev", "eth0"))[0]["addr_info"][0]["local"]
    argv = ["nsenter", "--net=/run/netns/lab.web", "ping", "-c", "12", "-s", "972", "-l", "12", "-i", "0.002", db]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    times = [float(line.partition("time=")[2].split()[0]) for line in said.splitlines() if "time=" in line]
    assert not times or max(times) > 20 or len(times) < 12, said
    succeeds("impair", "node1", "--rate", "8mbit")
    [row] = qdiscs("lab.node1", "eth0")
    assert row["options"]["rate"] == 1_000_000  # type: ignore[index] - JSON
    clean()
    run("lab.node1", "tc", "qdisc", "del", "dev", "eth0", "root")
    assert podnet("status", "lab", "--check").code == 1
    succeeds("up", file)
    clean()
    succeeds("impair", "node1", "--clear")
    as_before(before)
    assert qdiscs("lab.node1", "eth0") == []


def _mbit_per_second(megabytes: int) -> float:
    """What iperf3's receiver in db gets from web over one TCP stream."""
    db = json.loads(run("lab.db", "ip", "-j", "-4", "address", "show", "dev", "eth0"))[0]["addr_info"][0]["local"]
    with subprocess.Popen(inside("lab.db", "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: ":5201" in run("lab.db", "ss", "-Htln"))
            said = json.loads(run("lab.web", "iperf3", "-J", "-c", db, "-n", f"{megabytes}M"))
            server.wait(30)
        finally:
            server.kill()
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e6


def test_a_rate_is_what_a_stream_gets(tmp_path: Path) -> None:
    file = write(tmp_path, two_nodes() | {"impair": [{"target": "node1", "rate": "8mbit"}]})
    succeeds("up", file)
    # The first packets find a full bucket; on a busy machine there may be less, never more.
    assert 2 < _mbit_per_second(1) < 9
    succeeds("impair", "node1", "--rate", "40mbit")
    assert 10 < _mbit_per_second(4) < 45
    succeeds("impair", "node1", "--clear")  # the file's own is back
    assert _mbit_per_second(1) < 9
    succeeds("up", write(tmp_path, two_nodes()))
    assert _mbit_per_second(64) > 100


def test_what_the_file_impairs(tmp_path: Path) -> None:
    lab = two_nodes() | {"impair": [{"target": "db", "rate": "10mbit"}]}
    succeeds("up", write(tmp_path, lab))
    clean()
    assert qdiscs("lab.db", "eth0")[0]["kind"] == "tbf"
    assert "db:eth0: rate 10mbit (by the topology)" in succeeds("status", "lab").out
    del lab["impair"]
    succeeds("up", write(tmp_path, lab))
    assert qdiscs("lab.db", "eth0") == []
    proved()


REFUSED = [
    ("impair web", 2, "--clear"),
    ("impair web --loss 5", 2, "'5' is no percentage"),
    ("impair web --jitter 5ms", 2, "jitter without a delay"),
    ("impair web --clear", 2, "web:eth0 has no impairment"),
    ("impair web:eth9 --rate 1mbit", 2, "web has no interface eth9: there are eth0"),
    ("impair nobody --rate 1mbit", 2, "there are node1, node2, web"),
    ("link web sideways", 2, "sideways"),
    ("node web stop", 2, "lab lab has no node web: there are node1, node2"),
    ("partition node1", 2, "two groups or more"),
    ("partition node1,node2 node2", 2, "node2 is named twice"),
    ("partition node1 web", 2, "lab lab has no node web"),
    ("heal --lab other", 2, "no lab named other"),
]


def test_what_cannot_be_is_told_and_changes_nothing(tmp_path: Path) -> None:
    succeeds("up", write(tmp_path, two_nodes()))
    for command, code, said in REFUSED:
        done = podnet(*command.split())
        assert (done.code, said in done.err) == (code, True), (command, done.text)
    assert succeeds("status", "lab", "-o", "json").json["faults"] == []
    clean()
