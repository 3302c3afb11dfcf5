"""Labs in which BIRD carries the pod CIDRs: what nodes learn, keep and lose; asked of birdc, ip and ps."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lab_cli import (
    PODNET,
    TOPOLOGIES,
    Topology,
    changed,
    clean,
    drift,
    named,
    planned,
    podnet,
    proved,
    succeeds,
    target,
    two_nodes,
    write,
)
from lab_kernel import eventually, namespaces_of, routes, run

pytestmark = pytest.mark.kernel

FILES = Path("/run/podnet/labs/lab/bird")


def _mesh(nodes: int, **bgp: Any) -> Topology:
    lab = two_nodes(fabric="bgp", ipFamily="dual", **({"bgp": bgp} if bgp else {}))
    lab["nodes"] = [{"name": f"node{number}"} for number in range(1, nodes + 1)]
    return lab


def _birdc(node: str, *words: str) -> str:
    argv = ["birdc", "-s", str(FILES / f"{node}.ctl"), " ".join(words)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _session(node: str, name: str) -> list[str]:
    """A session as ``birdc show protocols`` has it: name, protocol, table, state, since when, more."""
    lines = _birdc(node, "show protocols").splitlines()
    return next((line.split() for line in lines if line.startswith(f"{name} ")), [])


def _learned(node: str, version: int = 4) -> dict[str, str]:
    """What bird wrote into a node's kernel: prefix to next hop."""
    found = routes(f"lab.{node}", version)
    return {dst: row["gateway"] for dst, row in found.items() if row["protocol"] == "bird"}


def _pid(node: str) -> int:
    [container] = target("lab", node)["containers"]
    assert container["name"] == "bird"
    return int(container["pid"])


def _lives(pid: int) -> bool:
    try:
        return "bird" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_node_that_comes_or_goes_is_a_session_more_or_less_and_no_bird_starts_anew(tmp_path: Path) -> None:
    two, three = _mesh(2), _mesh(3)
    succeeds("up", write(tmp_path, two))
    assert _learned("node1") == {"10.244.1.0/24": "198.18.0.3"}
    assert _learned("node1", 6) == {"fd00:10:244:1::/64": "fd00:198:18::3"}
    bird, since = _pid("node1"), _session("node1", "node2.ipv4")[4]
    assert _session("node1", "node2.ipv6")[5] == "Established"

    told = succeeds("plan", write(tmp_path, three)).out
    assert re.search(r"~ configuration of bird in lab\.node1: lacks 'protocol bgp 'node3\.ipv4' .* as 64514;", told)
    plan = planned(write(tmp_path, three))
    assert {"create container node3/bird in lab.node3", "create configuration of bird in lab.node3"} <= plan
    assert "create route 10.244.2.0/24 via 198.18.0.4 dev eth0 by bird in lab.node1" in plan
    succeeds("up", write(tmp_path, three))
    clean()
    proved()
    assert _learned("node1") == {"10.244.1.0/24": "198.18.0.3", "10.244.2.0/24": "198.18.0.4"}
    assert _learned("node3", 6).keys() == {"fd00:10:244::/64", "fd00:10:244:1::/64"}
    gone = _pid("node3")
    assert _lives(gone)

    assert planned(write(tmp_path, two)) & {"delete container node3/bird in lab.node3"}
    succeeds("up", write(tmp_path, two))
    clean()
    assert eventually(lambda: len(_learned("node1")) == len(_learned("node1", 6)) == 1)
    assert not _session("node1", "node3.ipv4")
    assert not _lives(gone)
    assert not list(FILES.glob("node3.*"))
    # Through all of it, the one bird and the one session.
    assert (_pid("node1"), _session("node1", "node2.ipv4")[4]) == (bird, since)


def test_a_bird_that_ends_is_named_with_what_is_missing_and_up_repairs_it(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text((TOPOLOGIES / "bgp.yaml").read_text().replace("name: bgp\n", "name: lab\n"))
    succeeds("up", path)
    # The router passes the next hop on: nodes of one subnet send to each other directly.
    assert _learned("node1") == {"10.244.1.0/24": "198.18.1.3", "10.244.2.0/24": "198.18.1.1"}

    os.kill(_pid("node3"), signal.SIGKILL)
    eventually(lambda: _learned("node1").keys() == {"10.244.1.0/24"})
    eventually(lambda: "10.244.2.0/24" not in _learned("router"))
    assert _learned("node3")  # what a killed bird wrote stays
    assert podnet("status", "lab", "--check").code == 1
    assert drift() == {
        "create container node3/bird in lab.node3",
        "recreate route 10.244.0.0/24 via 198.18.2.1 dev eth0 by bird in lab.node3",
        "recreate route 10.244.1.0/24 via 198.18.2.1 dev eth0 by bird in lab.node3",
        "create route 10.244.2.0/24 via 198.18.1.1 dev eth0 by bird in lab.node1",
        "create route 10.244.2.0/24 via 198.18.1.1 dev eth0 by bird in lab.node2",
        "create route 10.244.2.0/24 via 198.18.2.2 dev eth1 by bird in lab.router",
    }
    text = succeeds("status", "lab").out
    assert "node3/bird in lab.node3: has ended with signal 9" in text
    assert re.search(r"10\.244\.2\.0/24 .* in lab\.router: is not learned; sessions: node3\.ipv4 is \w+", text)
    succeeds("up", path)
    clean()
    proved()

    # Asked to end, it says good-bye and takes its routes along: a daemon has not "finished its work".
    _birdc("node3", "down")
    eventually(lambda: not _learned("node3") and "10.244.2.0/24" not in _learned("node1"))
    assert "create container node3/bird in lab.node3" in drift()
    succeeds("up", path)
    clean()
    assert "nothing to change" in succeeds("up", path).out
    assert "Started" in succeeds("logs", "node3").out
    run("lab.node3", "ip", "route", "del", "10.244.0.0/24")  # bird puts it back, podnet waits
    assert drift() <= {"create route 10.244.0.0/24 via 198.18.2.1 dev eth0 by bird in lab.node3"}
    succeeds("up", path)
    clean()
    proved()


def test_routes_that_others_put_there_are_nobodys_business(tmp_path: Path) -> None:
    """Also routes of bird's protocol: who gives it more to do is not disturbed."""
    path = write(tmp_path, _mesh(2))
    succeeds("up", path)
    run("lab.node1", "ip", "route", "add", "192.0.2.0/24", "via", "198.18.0.3", "proto", "static")
    more = (
        (FILES / "node2.conf").read_text().replace("10.244.1.0/24 blackhole;", "\\g<0> route 10.244.77.0/24 blackhole;")
    )
    own = more.replace("\\g<0>", "10.244.1.0/24 blackhole;")
    (tmp_path / "more.conf").write_text(own)
    assert "Reconfigured" in _birdc("node2", f'configure "{tmp_path}/more.conf"')
    eventually(lambda: "10.244.77.0/24" in _learned("node1"))
    clean()
    assert "nothing to change" in succeeds("up", path).out
    assert {"192.0.2.0/24", "10.244.77.0/24"} <= routes("lab.node1").keys()


def test_what_is_written_by_hand_into_a_configuration_is_seen_and_put_back(tmp_path: Path) -> None:
    path = write(tmp_path, _mesh(2))
    succeeds("up", path)
    bird, conf = _pid("node1"), FILES / "node1.conf"
    before = conf.read_text()
    conf.write_text(before + "this is no configuration\n")
    assert drift() == {"update configuration of bird in lab.node1"}
    assert "has 'this is no configuration' besides" in succeeds("status", "lab").out
    succeeds("up", path)
    clean()
    conf.unlink()
    assert drift() == {"create configuration of bird in lab.node1"}
    succeeds("up", path)
    clean()
    assert conf.read_text() == before
    assert _pid("node1") == bird
    assert _session("node1", "node2.ipv4")[5] == "Established"


def test_a_configuration_that_bird_refuses_leaves_everything_as_it_was(tmp_path: Path) -> None:
    from podnet.errors import KernelError
    from podnet.kernel.bird import Birds

    succeeds("up", write(tmp_path, _mesh(2)))
    birds = Birds(str(FILES))
    [conf] = [each for each in birds.observe() if each.name == "node1"]
    with pytest.raises(KernelError, match=r"bird refuses it: .*node1\.conf\.new:\d+:\d+ syntax error"):
        birds.write(conf._replace(text=f"{conf.text}nonsense;\n"))
    assert not list(FILES.glob("*.new"))
    clean()
    assert _session("node1", "node2.ipv4")[5] == "Established"


def test_up_that_waits_in_vain_says_for_what_and_how_the_sessions_are(tmp_path: Path) -> None:
    path = write(tmp_path, _mesh(2))
    succeeds("up", path)
    _birdc("node2", "disable 'node1.ipv4'")
    eventually(lambda: not _learned("node1"))
    hurried = "from podnet.kernel import bird; bird.LIMIT = 1.0; from podnet.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", hurried, "up", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "routes were not learned in 1 s" in done.stderr
    assert re.search(r"lab\.node1: 10\.244\.1\.0/24 via 198\.18\.0\.3; sessions: node2\.ipv4 is \w+", done.stderr)
    assert re.search(r"lab\.node2: 10\.244\.0\.0/24 via 198\.18\.0\.2; sessions: node1\.ipv4 is down", done.stderr)
    assert "half-built" in done.stderr
    assert succeeds("status", "lab", "-o", "json").json["state"] == "unfinished"
    # The diagnosis does not advise to write by hand what a daemon is to write.
    why = podnet("test", "lab", "--protocol", "icmp").out
    assert "WHY node1 has no route to 10.244.1.2 [no-route]" in why
    assert "its routing daemon has not learned it" in why
    assert "ip route add" not in why
    _birdc("node2", "enable 'node1.ipv4'")
    succeeds("up", path)
    clean()
    # A daemon would mend its routes at once.
    assert "nothing in this lab would break by it" in podnet("fault", "inject", "route-missing").err


def test_what_is_broken_on_purpose_takes_routes_along_and_is_no_drift(tmp_path: Path) -> None:
    path = write(tmp_path, _mesh(3, holdTime=6))
    succeeds("up", path)
    bird = _pid("node3")

    succeeds("node", "node3", "stop")
    assert not _lives(bird)
    eventually(lambda: _learned("node1").keys() == {"10.244.1.0/24"})
    clean()
    assert "nothing to change" in succeeds("up", path).out
    succeeds("node", "node3", "start")
    clean()
    assert _learned("node1").keys() == {"10.244.1.0/24", "10.244.2.0/24"}
    assert len(_learned("node3")) == len(_learned("node3", 6)) == 2

    succeeds("partition", "node1", "node2,node3")
    succeeds("link", "node3:eth0", "down")
    clean()
    eventually(lambda: not _learned("node1") and not _learned("node2"), within=30)  # nobody said good-bye
    clean()
    succeeds("heal")
    clean()
    assert _learned("node1").keys() == {"10.244.1.0/24"}
    succeeds("link", "node3:eth0", "up")
    succeeds("impair", "node1", "--rate", "10mbit")
    clean()
    proved()


def test_after_up_was_killed_while_it_waited_down_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, _mesh(3))
    with subprocess.Popen([*PODNET, "up", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        eventually(lambda: all((FILES / f"node{number}.pid").exists() for number in (1, 2, 3)), within=30)
        assert up.poll() is None
        up.kill()
    birds = [int((FILES / f"node{number}.pid").read_text()) for number in (1, 2, 3)]
    assert len(set(birds)) == 3
    succeeds("down", "lab")
    assert namespaces_of("lab") == []
    assert not FILES.parent.exists(), list(FILES.parent.rglob("*"))
    assert (
        "bird" not in subprocess.run(["ps", "-eo", "comm"], capture_output=True, text=True, check=True).stdout.split()
    )


def test_without_bird_up_is_refused_and_says_which_package_has_it(tmp_path: Path) -> None:
    path, nothing = write(tmp_path, _mesh(2)), tmp_path / "nothing"
    nothing.touch(mode=0o644)
    hidden = 'for each in $(command -v bird); do mount --bind "$0" "$each"; done; exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", hidden, str(nothing), *PODNET]
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run([*argv, "up", str(path)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 3, done.stderr
    assert "bird, for fabric: bgp: not found. Get it: apt-get install bird2" in done.stderr
    assert podnet("list", "-o", "json").json == {"labs": []}
    doctor = subprocess.run(
        [*argv, "doctor", "-o", "json"], capture_output=True, text=True, check=False, env=environment
    )
    found = {each["name"]: each["found"] for each in json.loads(doctor.stdout)["capabilities"]}
    assert found["bird"] == "no"


def test_a_host_node_is_refused(tmp_path: Path) -> None:
    lab = changed(_mesh(2), lambda t: named(t, "nodes", "node1").update(host=True))
    done = podnet("up", write(tmp_path, lab))
    assert done.code == 2
    assert "no node is the machine itself" in done.err
