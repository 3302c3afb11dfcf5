"""64 calls at once, some of them killed, round after round, in a range that is as large as what it must hold.

After each round: no address twice, no DEL refused, no ADD refused while an address is free. Now and then, and at the
end: rules, links, ledger and the pods' own interfaces are exactly what the results of ADD say.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from own_machine import OwnMachine, own_machine

from podnet.cni.attachment import label_of, plugin_host_name

pytestmark = [pytest.mark.kernel, pytest.mark.stress]

# Half of the rounds go to the cold path, half to the server: a hundred in the short form, 2,000 in the long one.
ROUNDS = 5 * int(os.environ.get("PODNET_STRESS_COUNT", "10"))
AT_ONCE = 64
ADDRESSES = 61  # of a /26: without network, broadcast and gateway
STATE = "/var/lib/cni/podnet"
CNI = Path(__file__).resolve().parents[3] / "cni"
CONF = {
    "cniVersion": "1.1.0",
    "name": "storm",
    "type": "podnet",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {"type": "podnet", "subnet": "10.77.0.0/26"},
}


@dataclass
class Slot:
    """A place for a pod: its namespace, the container in it, and what is known of that container's network."""

    number: int
    life: int = 0
    result: dict[str, Any] | None = None
    unknown: bool = False  # a call for it was killed: perhaps there is something

    @property
    def container(self) -> str:
        return f"pod{self.number}-{self.life}"

    @property
    def netns(self) -> str:
        return f"/run/netns/{self.container}"

    @property
    def host(self) -> str:
        return plugin_host_name(label_of(str(CONF["name"]), self.container, "eth0"))

    @property
    def links(self) -> list[str]:
        """Those on the host, an ifb included."""
        return [each["name"] for each in self.result["interfaces"] if "sandbox" not in each] if self.result else []

    @property
    def address(self) -> str:
        return str(self.result["ips"][0]["address"]).partition("/")[0] if self.result else ""


@dataclass
class Runtime:
    """A runtime that is killed a lot: what it asks for, and what it may expect."""

    machine: OwnMachine
    driver: subprocess.Popen[str]
    chance: random.Random
    served: bool
    slots: list[Slot] = field(default_factory=lambda: [Slot(number) for number in range(AT_ONCE)])
    seconds: float = 1.0
    counts: dict[str, int] = field(default_factory=dict)

    def ask(self, calls: list[tuple[str, Slot]], **wish: Any) -> list[tuple[int, Any]]:
        """Many calls at once, none killed; exit code and answer of each."""
        return [(code, answer) for _, code, answer in self.call(calls, **wish)]

    def call(self, calls: list[tuple[str, Slot]], **wish: Any) -> list[tuple[str, int, Any]]:
        """Many calls at once; the last command that was given for each slot, its exit code and answer."""
        kills = wish.pop("kills", {})
        requests = []
        for verb, slot in calls:
            request: dict[str, Any] = {"environ": self.environ(verb, slot), "conf": self.conf(verb, slot)}
            if slot.number in kills:
                request["kill"] = kills[slot.number]
                if self.chance.random() < 0.5:  # a runtime that finds its plugin dead cleans up at once
                    request["then"] = {"environ": self.environ("DEL", slot), "conf": self.conf("DEL", slot)}
            requests.append(request)
        whole = {"before": [], "gone": [], "kill_server": None, "calls": requests} | wish
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write(json.dumps(whole) + "\n")
        self.driver.stdin.flush()
        line = self.driver.stdout.readline()
        assert line, "the program that makes the calls has ended"
        answer = json.loads(line)
        self.seconds = answer["seconds"]
        return [(verb, code, json.loads(output) if output else None) for verb, code, output in answer["answers"]]

    def environ(self, verb: str, slot: Slot) -> dict[str, str]:
        return {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": slot.container,
            "CNI_NETNS": slot.netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/run/cni/bin",
        }

    def conf(self, verb: str, slot: Slot) -> dict[str, Any]:
        extra: dict[str, Any] = {"prevResult": slot.result} if slot.result and verb in ("CHECK", "DEL") else {}
        if verb == "GC":
            valid = [{"containerID": each.container, "ifname": "eth0"} for each in self.slots if each.result]
            extra = {"cni.dev/valid-attachments": valid}
        # As containerd writes the keys.
        ports = [{"HostPort": 10000 + slot.number, "ContainerPort": 80, "Protocol": "TCP"}]
        rates = {"IngressRate": 10**9, "IngressBurst": 10**8, "EgressRate": 10**9, "EgressBurst": 10**8}
        runtime = {"portMappings": ports} | ({"bandwidth": rates} if slot.number % 4 == 0 else {})
        return CONF | {"runtimeConfig": runtime} | extra

    def round(self) -> None:
        """One round of ADD, DEL and CHECK, each slot in its own state, with kills."""
        before, gone, calls = [], [], []
        for slot in self.slots:
            if slot.unknown and self.chance.random() < 0.3:
                # The runtime has crashed as well, and knows nothing of the pod; a new one takes its place.
                before += [f"netns delete {slot.container}"]
                gone.append(slot.host)
                slot.life, slot.unknown, slot.result = slot.life + 1, False, None
                before += [f"netns add {slot.container}"]
            if slot.unknown:
                calls.append(("DEL", slot))
            elif slot.result is None:
                calls.append(("ADD", slot))
            else:
                calls.append((self.chance.choices(["DEL", "CHECK"], [9, 1])[0], slot))
        killed = [slot.number for verb, slot in calls if verb != "CHECK" and self.chance.random() < 0.2]
        kills = {number: self.chance.uniform(0, self.seconds) for number in killed}
        server = self.chance.uniform(0, self.seconds) if self.served and self.chance.random() < 0.2 else None
        holding = sum(1 for verb, slot in calls if slot.unknown or slot.result or verb == "ADD")
        answers = self.call(calls, before=before, gone=gone, kills=kills, kill_server=server)
        for (_, slot), (verb, code, answer) in zip(calls, answers, strict=True):
            self.judge(verb, slot, code, answer, holding)
        self.no_address_twice()

    def judge(self, verb: str, slot: Slot, code: int, answer: Any, holding: int) -> None:
        what = f"{verb} of {slot.container}: {code} {answer}"
        lost = code == 1 and verb == "ADD" and "the podnet server has ended" in answer["msg"]
        self.count("killed" if code < 0 else "lost" if lost else f"{verb} {'ok' if code == 0 else 'refused'}")
        if code < 0 or lost:
            slot.unknown = True
        elif verb == "ADD" and code == 0:
            slot.result = answer
        elif verb == "ADD":
            assert "no IP addresses available in range set" in answer["msg"], what
            assert holding >= ADDRESSES, f"{what}, and {holding} pods at most have an address"
        else:
            assert (code, answer) == (0, None), what
            if verb == "DEL":
                slot.result, slot.unknown = None, False

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def no_address_twice(self) -> None:
        found = [slot.address for slot in self.slots if slot.result and not slot.unknown]
        assert len(set(found)) == len(found), sorted(found)

    def settle(self) -> None:
        """Clean up after all kills, as a runtime does, and with GC; then all there is must be what is known."""
        answers = self.ask([("DEL", slot) for slot in self.slots if slot.unknown])
        assert answers == [(0, None)] * len(answers)
        for slot in self.slots:
            if slot.unknown:
                slot.result, slot.unknown = None, False
        assert self.ask([("GC", self.slots[0])]) == [(0, None)]
        attached = [slot for slot in self.slots if slot.result]
        assert self.ask([("CHECK", slot) for slot in attached]) == [(0, None)] * len(attached)
        hosts = {row["ifname"] for row in self.machine.json("ip", "-j", "link")} - {"lo", "cni0"}
        assert hosts == {name for slot in attached for name in slot.links} - {"cni0"}
        assert self.elements("pods4") == sorted(slot.address for slot in attached)
        assert self.elements("ports4") == sorted(f"tcp.{10000 + slot.number}" for slot in attached)
        written = "\n".join(self.machine.reservations())
        # Masquerading has one element, a port mapping two; every fourth pod is shaped as well.
        for table, count, shaped in (
            ("holder", 1, 0),
            ("lease", 1, 0),
            ("part", 2, 1),
            ("element", 3, 0),
            ("port", 1, 0),
        ):
            found = re.findall(rf"^{table} .*?\b(pod\d+-\d+)\b", written, re.MULTILINE)
            wanted = [slot.container for slot in attached for _ in range(count + shaped * (slot.number % 4 == 0))]
            assert sorted(found) == sorted(wanted), table
        for slot in attached:
            assert self.machine.address("eth0", slot.netns) == [f"{slot.address}/26"]

    def elements(self, name: str) -> list[str]:
        """The keys in the maps of this name."""
        rows = self.machine.json("nft", "-j", "list", "ruleset")["nftables"]
        keys = [
            each[0] for row in rows if row.get("map", {}).get("name") == name for each in row["map"].get("elem", [])
        ]
        return sorted(".".join(map(str, each["concat"])) if isinstance(each, dict) else each for each in keys)


@pytest.fixture(params=["cold", "warm"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    """Cold: each call a process of its own. Warm: the small executable, and the server, which is killed too."""
    warm = request.param == "warm"
    if warm and not (CNI / "podnet").is_file():
        pytest.skip("the small executable is not built: no C compiler was found by scripts/setup")
    plugin, server = (str(CNI / "podnet"), str(CNI / "podnet-python")) if warm else ("", "")
    seed = int(os.environ.get("PODNET_STRESS_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"PODNET_STRESS_SEED={seed}")
    with own_machine() as machine, (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(
            machine.argv(sys.executable, Path(__file__).with_name("storm.py"), STATE, plugin, server),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        with driver:
            yield Runtime(machine, driver, random.Random(seed), warm)  # noqa: S311 - which calls are killed
            assert driver.stdin is not None
            driver.stdin.close()
            machine.close()
    said = (tmp_path / "log").read_text().splitlines()
    assert [line for line in said if not line.startswith("podnet: a call was given up")] == []


@pytest.mark.timeout(1800)  # seconds: it took 280 on a machine with 25 processes waiting
def test_a_storm_of_calls_with_kills(runtime: Runtime) -> None:
    runtime.ask([], before=[f"netns add {slot.container}" for slot in runtime.slots])
    half = runtime.slots[::2]
    for slot, (code, answer) in zip(half, runtime.ask([("ADD", slot) for slot in half]), strict=True):
        assert code == 0, answer
        slot.result = answer
    for number in range(1, ROUNDS + 1):
        runtime.round()
        if number % 20 == 0:
            runtime.settle()
    runtime.settle()
    attached = [slot for slot in runtime.slots if slot.result]
    assert runtime.ask([("DEL", slot) for slot in attached]) == [(0, None)] * len(attached)
    for slot in attached:
        slot.result = None
    runtime.settle()
    print(runtime.counts)
    assert runtime.counts["killed"] > ROUNDS
    assert runtime.counts["ADD ok"] > 10 * ROUNDS
    assert runtime.machine.out("nft", "list", "ruleset") == ""
