"""What all tests share: kernel tests run in a sandbox, and leave the machine as they found it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine an example takes long, and that is no failure: what must be bounded has a bound of its own.
settings.register_profile("podnet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("podnet")

# A shell in the background ignores Ctrl-C, nohup ignores hang-ups, and all that they start inherits that. What tests
# start must not: a handler, other than being ignored, ends with exec.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

# Every process that a test starts inherits it, wherever it ends up.
_MARK = f"PODNET_TEST_SESSION={uuid.uuid4().hex}"
os.environ.update([_MARK.split("=")])

_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/neigh/default/gc_thresh1",
    "net/ipv4/neigh/default/gc_thresh2",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv6/neigh/default/gc_thresh3",
    "net/core/devconf_inherit_init_net",
)
_SETTLES_WITHIN = 30.0  # seconds: the kernel takes namespaces apart in the background, all of a machine in turn


@cache
def outside_the_sandbox() -> str:
    """Why this process would touch the machine's own network; empty when it would not.

    Asked once, before the first kernel test: what a test leaves behind must not look like the machine's.
    """
    done = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True)
    real = sorted(link["ifname"] for link in json.loads(done.stdout) if link["ifname"] != "lo" and link["addr_info"])
    if real:
        return f"here are interfaces with addresses: {', '.join(real)}"
    shared = [folder for folder in ("/run/netns", "/run/podnet") if not os.path.ismount(folder)]
    return f"{' and '.join(shared)} may be the machine's own" if shared else ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("vm") is not None and os.environ.get("PODNET_VM") != "1":
        pytest.skip("needs Debian's kernel: scripts/test tests/vm boots it, and so does scripts/test")
    if item.get_closest_marker("kernel") is None:
        return
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    why = outside_the_sandbox()
    if why and os.environ.get("PODNET_TEST_ON_MACHINE") != "1":
        pytest.fail(
            f"a kernel test outside the sandbox: {why}. Run ./scripts/test, which sets the sandbox up, "
            "or set PODNET_TEST_ON_MACHINE=1 to let the tests change this machine's network.",
            pytrace=False,
        )


def snapshot() -> dict[str, list[str]]:
    """The machine's network as text, by topic; what changes by itself (counters, lifetimes) left out."""
    return {
        "links": _ip("link"),
        "addresses": _ip("address"),
        "routes": _ip("-4", "route", "show", "table", "all") + _ip("-6", "route", "show", "table", "all"),
        "rules": _ip("-4", "rule") + _ip("-6", "rule"),
        "namespaces": _names("/run/netns"),
        "files": sorted(str(path) for path in Path("/run/podnet").rglob("*")),
        "mounts": _mounts(),
        "nftables": _nftables(),
        "sysctls": _sysctls(),
    }


def _ip(*arguments: str) -> list[str]:
    done = subprocess.run(["ip", "-j", *arguments], capture_output=True, text=True, check=True)
    return sorted(json.dumps(_steady(row), sort_keys=True) for row in json.loads(done.stdout or "[]"))


def _steady(value: object) -> object:
    """A JSON value without counters, handles and lifetimes."""
    moving = {"valid_life_time", "preferred_life_time", "expires", "packets", "bytes", "handle", "cache"}
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in moving}
    return [_steady(each) for each in value] if isinstance(value, list) else value


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _mounts() -> list[str]:
    # Root, mount point and file system: the ids in the other fields are handed out anew.
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted(f"{fields[fields.index('-') + 1]} {fields[3]} on {fields[4]}" for fields in lines)


def _nftables() -> list[str]:
    try:
        done = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return []
    rows = json.loads(done.stdout)["nftables"] if done.stdout else []
    return sorted(json.dumps(_steady(row), sort_keys=True) for row in rows if "metainfo" not in row)


def _sysctls() -> list[str]:
    paths = [path for name in _SYSCTLS if (path := Path("/proc/sys", name)).exists()]
    return [f"{path} = {path.read_text().strip()}" for path in paths]


def processes() -> dict[int, str]:
    """The living processes that this test run has started, with all that they have started, and what they run."""
    own_mounts = os.readlink("/proc/self/ns/mnt")
    sandboxed = not outside_the_sandbox()
    started: dict[int, str] = {}
    others: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z":
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            marked = _MARK.encode() in (entry / "environ").read_bytes()
            if marked or (sandboxed and os.readlink(entry / "ns/mnt") == own_mounts):
                started[int(entry.name)] = command
            else:
                others[int(entry.name)] = (int(parent), command)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended while we looked
    # A container has an environment and mounts of its own; its parent is one of ours.
    grown = True
    while grown:
        children = {pid: command for pid, (parent, command) in others.items() if parent in started}
        grown = not children.keys() <= started.keys()
        started |= children
    return started


def _differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    lines = []
    for topic, was in before.items():
        lines += [f"{topic}: gone: {line}" for line in was if line not in after[topic]]
        lines += [f"{topic}: left behind: {line}" for line in after[topic] if line not in was]
    return lines


@contextmanager
def unchanged() -> Iterator[None]:
    """Fail when what happens inside leaves anything behind, or takes anything away."""
    before, running = snapshot(), processes()
    yield
    deadline = time.monotonic() + _SETTLES_WITHIN
    while True:
        changes = _differences(before, snapshot())
        changes += [f"process: still runs: {pid} {what}" for pid, what in processes().items() if pid not in running]
        if not changes or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if changes:
        pytest.fail("the test changed the machine:\n  " + "\n  ".join(changes), pytrace=False)


@pytest.fixture
def machine_unchanged() -> Iterator[None]:
    """Fail the test that leaves anything behind, or takes anything away, in the namespace that tests run in."""
    with unchanged():
        yield


@pytest.fixture(autouse=True)
def _every_kernel_test_leaves_the_machine_unchanged(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("kernel") is not None and request.node.get_closest_marker("vm") is None:
        request.getfixturevalue("machine_unchanged")


@pytest.fixture(autouse=True, scope="module")
def _a_module_of_the_second_tier_leaves_the_machine_unchanged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once a module: under software emulation, looking takes longer than most tests."""
    if request.node.get_closest_marker("vm") is None or os.environ.get("PODNET_VM") != "1":
        yield
        return
    with unchanged():
        yield
