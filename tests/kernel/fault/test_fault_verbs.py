"""inject, clear, list, check: what a user sees of them, and that nothing remains, however they end."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from lab_cli import PODNET, clean, podnet, proved, succeeds, two_nodes, write
from lab_kernel import differences, run, snapshots, sysctl, tables

pytestmark = pytest.mark.kernel

LEDGER = Path("/run/podnet/labs/lab/faults.json")


def _up(folder: Path, **networking: str) -> Path:
    path = write(folder, two_nodes(**networking))
    succeeds("up", path)
    return path


def _state() -> list[str]:
    return [each["state"] for each in succeeds("fault", "list", "-o", "json").json["injected"]]


def test_a_fault_is_done_told_and_undone(tmp_path: Path) -> None:
    _up(tmp_path)
    before = snapshots("lab")
    done = succeeds("fault", "inject", "forwarding-off", "--at", "node1")
    assert done.out == "lab lab: fault 1, forwarding-off at node1, IPv4: 24 of the lab's checks must fail\n"
    assert sysctl("lab.node1", "net/ipv4/ip_forward") == "0"
    assert _state() == ["in effect"]
    tested = podnet("test", "-o", "json")
    assert tested.code == 1
    assert tested.json["summary"]["failed"] == 24
    causes = {(d["cause"]["kind"], d["cause"]["netns"]) for d in tested.json["diagnoses"]}
    assert causes == {("forwarding-off", "lab.node1")}
    assert "WHY node1 does not forward: net.ipv4.ip_forward is 0" in podnet("test").out
    assert succeeds("fault", "clear").out == "lab lab: fault 1, forwarding-off at node1, IPv4: cleared\n"
    assert differences(before, snapshots("lab")) == []
    assert not LEDGER.exists()
    proved()


def test_what_the_diagnosis_tells_to_do_mends_it(tmp_path: Path) -> None:
    _up(tmp_path)
    succeeds("fault", "inject", "forwarding-off", "--at", "node1")
    mend = podnet("test", "-o", "json").json["diagnoses"][0]["cause"]["mend"]
    subprocess.run([*PODNET, *shlex.split(mend)[1:]], check=True)
    proved()
    assert _state() == ["repaired"]


def test_up_repairs_what_is_of_the_topology_and_the_list_says_so(tmp_path: Path) -> None:
    path = _up(tmp_path)
    succeeds("fault", "inject", "route-missing", "--at", "node1")
    succeeds("fault", "inject", "forward-drop", "--at", "node2", "--to", "db")
    assert "1 change" in succeeds("up", path).out
    assert _state() == ["repaired", "in effect"]
    assert tables("lab.node2") == ["inet filter", "inet podnet"]
    cleared = succeeds("fault", "clear").out
    assert "forward-drop at node2 (towards db), IPv4: cleared\n" in cleared
    assert "route-missing at node1 (towards node2), IPv4: cleared (was repaired already)" in cleared
    assert tables("lab.node2") == ["inet podnet"]
    clean()


def test_down_takes_faults_along(tmp_path: Path) -> None:
    _up(tmp_path, ipFamily="dual")
    for name in ("veth-peer-down", "state-drop", "underlay-partition", "mac-pinned"):
        succeeds("fault", "inject", name)
    succeeds("down")
    assert not Path("/run/podnet").exists() or list(Path("/run/podnet").iterdir()) == []


def test_one_of_several_is_cleared_by_its_number(tmp_path: Path) -> None:
    _up(tmp_path)
    for name in ("forwarding-off", "icmp-ignored"):
        succeeds("fault", "inject", name)
    assert "fault 1, forwarding-off" in succeeds("fault", "clear", "1").out
    left = succeeds("fault", "list", "-o", "json").json["injected"]
    assert [(each["number"], each["fault"], each["at"]) for each in left] == [(2, "icmp-ignored", "web")]
    refused = podnet("fault", "clear", "7")
    assert (refused.code, refused.err) == (2, "podnet: lab lab has no fault 7 (there: 2)\n")


REFUSED: list[tuple[list[str], int, str]] = [
    (["inject"], 2, "give the NAME of a fault"),
    (["inject", "forwarding-of"], 2, "there is no fault 'forwarding-of': did you mean forwarding-off?"),
    (
        ["inject", "forwarding-off", "--at", "web"],
        2,
        "cannot be applied at web in lab lab: it could be at node1, node2",
    ),
    (["inject", "forwarding-off", "--at", "nobody"], 2, "lab lab has no nobody"),
    (["inject", "forwarding-off", "--family", "ipv6"], 2, "lab lab has no IPv6"),
    (["inject", "rp-filter-strict"], 2, "nothing in this lab would break by it"),
    (["inject", "forwarding-off", "--lab", "other"], 2, "no lab named other is running (running: lab)"),
    (["check", "anything"], 2, "lab lab has no fault"),
]


def test_what_cannot_be_done_is_refused_with_a_reason(tmp_path: Path) -> None:
    _up(tmp_path)
    before = snapshots("lab")
    for arguments, code, message in REFUSED:
        done = podnet("fault", *arguments)
        assert (done.code, message in done.err) == (code, True), done.text
    succeeds("fault", "inject", "forwarding-off")
    again = podnet("fault", "inject", "forwarding-off")
    assert (again.code, "is at node1 already" in again.err) == (2, True), again.text
    succeeds("fault", "clear")
    assert "there is no fault: nothing to do" in succeeds("fault", "clear").err
    assert differences(before, snapshots("lab")) == []


def test_what_is_the_machines_alone_is_refused_where_it_cannot_be_changed(tmp_path: Path) -> None:
    # Only a machine's first network namespace has the limits; tests/vm/lab/test_vm_limits.py is in one.
    _up(tmp_path)
    refused = podnet("fault", "inject", "neighbour-table-full", "--machine")
    assert refused.code == 3
    assert "the machine's first network namespace alone has" in refused.err
    assert not LEDGER.exists()
    assert "neighbour-table-full" in succeeds("fault", "list").out
    proved()


def test_what_the_kernel_refuses_is_undone(tmp_path: Path) -> None:
    _up(tmp_path)
    run("lab.node1", "nft", "create table inet filter")
    before = snapshots("lab")
    # Two steps: the route's MTU is done when the table turns out to be there already.
    done = podnet("fault", "inject", "mtu-smaller-silent", "--at", "node1")
    assert done.code == 4
    assert "File exists" in done.err
    assert differences(before, snapshots("lab")) == []
    assert not LEDGER.exists()


_KILLED = """
import os
from podnet.cli import main
from podnet.fault import ledger
save, calls = ledger.save, []
def saved(*arguments):
    calls.append(1)
    if len(calls) == 2:
        os._exit(9)
    save(*arguments)
ledger.save = saved
main()
"""


def test_a_killed_injection_is_known_and_cleared(tmp_path: Path) -> None:
    _up(tmp_path)
    before = snapshots("lab")
    command = [sys.executable, "-c", _KILLED, "fault", "inject", "wrong-next-hop", "--at", "node1"]
    assert subprocess.run(command, capture_output=True).returncode == 9
    assert _state() == ["in effect, injected by a podnet that was killed"]
    succeeds("fault", "clear")
    assert differences(before, snapshots("lab")) == []


def test_faults_never_touch_the_machine_itself(tmp_path: Path) -> None:
    topology = two_nodes()
    topology["nodes"][0]["host"] = True
    succeeds("up", write(tmp_path, topology))
    for name in ("forwarding-off", "route-missing", "uplink-down", "forward-drop"):
        done = podnet("fault", "inject", name, "--at", "node1")
        assert done.code == 2, f"{name} was done to the machine: {done.out}"


# -- the exercise -------------------------------------------------------------------------------------------


def test_a_hidden_fault_is_not_told_but_found_and_judged(tmp_path: Path) -> None:
    _up(tmp_path)
    done = succeeds("fault", "inject", "--hidden", "--seed", "3")
    fault = _unpacked()
    told = done.text + succeeds("fault", "list").text.partition("lab lab,")[2] + LEDGER.read_text()
    for word in (fault["fault"], f"at {fault['at']}", "ip route", "nft"):
        assert word not in told
    plain = podnet("test", "-o", "json")
    assert (plain.code, plain.json["diagnoses"]) == (1, [])
    assert podnet("test", "--why", "-o", "json").json["diagnoses"] != []
    judged = {
        "no idea": (1, "no\n"),
        f"something at {fault['at']}": (1, "the place is right, the fault is not\n"),
        f"{fault['fault']} at nowhere": (1, "the fault is right, its place is not\n"),
        f"{fault['fault']} at {fault['at']}": (0, f"right: {fault['fault']} at {fault['at']}"),
    }
    for answer, (code, text) in judged.items():
        done = podnet("fault", "check", answer)
        assert (done.code, done.out.startswith(text)) == (code, True), done.text
    succeeds("fault", "clear")
    proved()


def _unpacked() -> dict[str, str]:
    from podnet.fault import ledger

    (entry,) = ledger.load("lab")
    return {"fault": entry.fault, "at": entry.at}


def test_a_seed_chooses_the_same_again(tmp_path: Path) -> None:
    _up(tmp_path)
    chosen = []
    for seed in ("1", "1", "2", "3", "4"):
        succeeds("fault", "inject", "--hidden", "--seed", seed)
        chosen.append(tuple(_unpacked().values()))
        succeeds("fault", "clear")
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1
