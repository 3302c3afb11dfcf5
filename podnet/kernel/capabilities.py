"""What this machine can do: for ``podnet doctor``, and for the checks before anything is touched.

A capability is one row of ``_ROWS``: what it is for, how to find out, how to get it on Debian. Those that are found
out by trial share one namespace without a name, which is gone when the rows are.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from podnet.errors import CapabilityError, PodnetError
from podnet.kernel import netns, trials
from podnet.kernel.trials import Finding

__all__ = ["Capability", "probe_all", "require"]


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that this machine can or cannot do.

    ``found`` is ``yes``, ``no`` or ``unknown``; ``detail`` is what was seen; ``remedy`` is a package or a command;
    without a ``required`` one no lab runs, without any other only what ``needed_for`` says does not work.
    """

    name: str
    needed_for: str
    found: str
    detail: str
    remedy: str
    required: bool


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    needed_for: str
    test: Callable[[], Finding]
    remedy: str
    required: bool = False
    trial: bool = False  # whether the test is run in the throw-away namespace


# --- findings that need no trial --------------------------------------------------------------------------------

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}  # linux/capability.h
_OLDEST_KERNEL = (5, 18)  # IFA_PROTO, by which podnet knows its own addresses


def _privileges() -> Finding:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            lacking = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
            return ("no", "lacks " + ", ".join(lacking)) if lacking else ("yes", f"uid {os.geteuid()}")
    return "unknown", "/proc/self/status has no CapEff"


def _namespaces() -> Finding:
    try:
        with netns.anonymous():
            return "yes", ""
    except PodnetError as error:
        return "no", str(error)


def _kernel() -> Finding:
    release = os.uname().release
    parts = [int(part) for part in release.split("-")[0].split("+")[0].split(".")[:2] if part.isdigit()]
    return ("yes" if tuple(parts) >= _OLDEST_KERNEL else "no"), release


def _modules() -> Finding:
    folder = f"/lib/modules/{os.uname().release}"
    if not Path("/proc/modules").exists():
        return "no", "the kernel is built without loadable modules"
    return ("yes", folder) if Path(folder).is_dir() else ("no", f"no {folder}")


def _tool(name: str) -> Callable[[], Finding]:
    def test() -> Finding:
        path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
        return ("yes", path) if path else ("no", "not found")

    return test


def _second_tier() -> Finding:
    lacking = [name for name in ("qemu-system-x86_64", "depmod") if _tool(name)()[0] == "no"]
    return ("no", "no " + ", ".join(lacking)) if lacking else ("yes", "")


def _value(name: str, least: int) -> Callable[[], Finding]:
    """A limit below ``/proc/sys``; some are shown in the machine's own namespace only."""

    def test() -> Finding:
        try:
            value = int(Path("/proc/sys", name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return "unknown", f"{name.replace('/', '.')} cannot be read here"
        return ("yes" if value >= least else "no"), str(value)

    return test


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= 4096
    return ("yes" if enough else "no"), f"soft {soft}, hard {hard}"


def _bridge_ports() -> Finding:
    return "yes", "1023 ports a bridge"  # BR_MAX_PORTS, net/bridge/br_private.h: port 0 is none


def _call_iptables() -> Finding:
    try:
        value = Path("/proc/sys/net/bridge/bridge-nf-call-iptables").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return "no", "br_netfilter is not loaded"
    return "yes", f"net.bridge.bridge-nf-call-iptables = {value} in new namespaces"


def _mounts() -> list[tuple[str, str, list[str]]]:
    """Where each mount is, its file system's type, and what mountinfo says of its propagation (proc(5))."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    rows = [line.split(" ") for line in text.splitlines()]
    return [(row[4], row[row.index("-") + 1], row[6 : row.index("-")]) for row in rows]


def _run_writable() -> Finding:
    if not os.access("/run", os.W_OK):
        return "no", "/run cannot be written"
    # The last of equal paths is the one on top.
    kinds = {where: kind for where, kind, _ in _mounts()}
    kind = next((kinds[where] for where in (netns.NETNS_DIR, "/run", "/") if where in kinds), "")
    if kind in ("tmpfs", ""):
        return "yes", ""
    return "yes", f"on {kind}: to name a namespace may take longer than to make it; a tmpfs is faster"


def _netns_mount() -> Finding:
    for where, _, propagation in _mounts():
        if where == netns.NETNS_DIR:
            shared = any(field.startswith("shared:") for field in propagation)
            return "yes", "a shared mount" if shared else "a private mount: made shared with the first lab"
    return "yes", "not yet a mount: made with the first lab"


# --- the table --------------------------------------------------------------------------------------------------


def _by_module(module: str) -> str:
    return f"modprobe {module}, or boot Debian's kernel (linux-image-amd64)"


_NAT = "chain trial {{\ntype nat hook postrouting priority 100\n{}\n}}"
_FILTER = "chain trial {{\ntype filter hook forward priority 0\n{}\n}}"
_FLOWTABLE = "flowtable trial {\nhook ingress priority 0\ndevices = { lo }\n}\n"


def _link(kind: str, needed_for: str, *, required: bool = False, module: str = "") -> _Row:
    return _Row(kind, needed_for, trials.link(kind), _by_module(module or kind), required, trial=True)


def _qdisc(kind: str, needed_for: str) -> _Row:
    return _Row(f"tc {kind}", needed_for, trials.qdisc(kind), _by_module(f"sch_{kind}"), trial=True)


def _rules(name: str, needed_for: str, ruleset: str, module: str, *, required: bool = False) -> _Row:
    return _Row(name, needed_for, trials.nftables(f"trial-{name}", ruleset), _by_module(module), required, trial=True)


_ROWS: tuple[_Row, ...] = (
    _Row("privileges", "every command that changes or enters a lab", _privileges, "run as root (sudo)", required=True),
    _Row("kernel", "knowing podnet's own addresses by their mark", _kernel, "Debian 12 or newer",
         required=True),
    _Row("modules", "loading what a kernel does not have built in", _modules, "apt-get install linux-image-amd64"),
    _Row("namespaces", "nodes and pods", _namespaces, "run as root on the machine, or in a privileged container",
         required=True),
    _Row("run", "lab records and namespace names", _run_writable, "run as root; mount a tmpfs on /run", required=True),
    _Row("netns mount", "names of namespaces", _netns_mount, "mount --make-shared /run/netns"),
    _link("bridge", "every node", required=True),
    _link("veth", "every pod", required=True),
    _link("vxlan", "fabric: vxlan"),
    _link("wireguard", "fabric: wireguard"),
    _link("ipip", "fabric: ipip"),
    _link("geneve", "fabrics over geneve"),
    _link("macvlan", "networks in mode macvlan"),
    _link("ipvlan", "networks in mode ipvlan"),
    _link("vlan", "802.1Q tagged interfaces", module="8021q"),
    _Row("bridge vlan", "vlan and vlanTrunk of CNI networks", trials.bridge_vlan, _by_module("8021q"), trial=True),
    _link("dummy", "interfaces that lead nowhere"),
    _link("ifb", "limits on what pods send"),
    _qdisc("tbf", "limits on what pods get and send"),
    _qdisc("htb", "limits for some subnets only"),
    _qdisc("netem", "delay, loss and disorder on purpose"),
    _qdisc("ingress", "policing and redirecting incoming traffic"),
    _rules("nftables", "masquerade, Services, NetworkPolicy", _FILTER.format("accept"), "nf_tables", required=True),
    _rules("masquerade", "pods that reach the outside", _NAT.format("masquerade"), "nft_masq", required=True),
    _rules("numgen", "Services: choosing an endpoint", _FILTER.format("meta mark set numgen inc mod 2"), "nft_numgen"),
    _rules("fib", "Services: knowing local addresses", _FILTER.format("fib daddr type local accept"), "nft_fib_inet"),
    _rules("conntrack", "NAT, and rules that know connections", _FILTER.format("ct state established accept"),
           "nf_conntrack", required=True),
    _rules("flowtable", "the forwarding fast path",
           _FLOWTABLE + _FILTER.format("meta l4proto tcp flow add @trial"), "nft_flow_offload"),
    _Row("br_netfilter", "rules that see packets between pods of one bridge", _call_iptables, "modprobe br_netfilter",
         trial=True),
    _Row("ipv6", "ipFamily: ipv6 and dual", trials.ipv6,
         "boot without ipv6.disable=1; sysctl net.ipv6.conf.default.disable_ipv6=0", trial=True),
    _Row("ipvs", "kubeProxyMode: ipvs", trials.ipvs, _by_module("ip_vs"), trial=True),
    _Row("packet sockets", "podnet test, podnet trace", trials.packet_socket, _by_module("af_packet"), required=True,
         trial=True),
    _Row("tun", "tunnels that end in a program", trials.tun, "modprobe tun; in a container: --device /dev/net/tun"),
    _Row("forwarding", "host: true nodes whose pods reach other hosts", trials.forward_policy,
         "let the lab's addresses pass: iptables -I FORWARD -s PODSUBNET -j ACCEPT, and the same with -d"),
    _Row("bird", "fabric: bgp", _tool("bird"),
         "apt-get install bird2; systemctl disable --now bird (podnet runs its own)"),
    _Row("ip", "looking at a lab by hand", _tool("ip"), "apt-get install iproute2"),
    _Row("nft", "looking at a lab's rules by hand", _tool("nft"), "apt-get install nftables"),
    _Row("tc", "looking at a lab's shaping by hand", _tool("tc"), "apt-get install iproute2"),
    _Row("ping", "exploring a lab by hand", _tool("ping"), "apt-get install iputils-ping"),
    _Row("tcpdump", "watching packets by hand", _tool("tcpdump"), "apt-get install tcpdump"),
    _Row("second tier", "tests on Debian's kernel in a virtual machine", _second_tier,
         "apt-get install qemu-system-x86 kmod (then scripts/vm)"),
    _Row("open files", "labs of more than 3,800 pods and nodes", _open_files, "ulimit -Hn 65536"),
    _Row("neighbours ipv4", "large labs in which every pod talks to every other",
         _value("net/ipv4/neigh/default/gc_thresh3", 1024), "sysctl net.ipv4.neigh.default.gc_thresh3=65536"),
    _Row("neighbours ipv6", "the same over IPv6",
         _value("net/ipv6/neigh/default/gc_thresh3", 1024), "sysctl net.ipv6.neigh.default.gc_thresh3=65536"),
    _Row("connections", "many connections through NAT at once",
         _value("net/netfilter/nf_conntrack_max", 4096), "sysctl net.netfilter.nf_conntrack_max=262144"),
    _Row("processes", "labs of many containers", _value("kernel/pid_max", 32768), "sysctl kernel.pid_max=4194304"),
    _Row("bridge ports", "at most so many pods a node", _bridge_ports, "more nodes"),
)  # fmt: skip


def _found_out(row: _Row) -> Capability:
    try:
        found, detail = row.test()
    except PodnetError as error:
        found, detail = "no", str(error)
    except OSError as error:
        found, detail = "unknown", str(error)
    return Capability(row.name, row.needed_for, found, detail, row.remedy, row.required)


def _probe(rows: Collection[_Row]) -> list[Capability]:
    found = {row.name: _found_out(row) for row in rows if not row.trial}
    trial = [row for row in rows if row.trial]
    if trial:
        try:
            with netns.anonymous():
                found.update((row.name, _found_out(row)) for row in trial)
        except PodnetError as error:
            why = f"cannot be tried: {error}"
            found.update(
                (row.name, Capability(row.name, row.needed_for, "unknown", why, row.remedy, row.required))
                for row in trial
            )
    return [found[row.name] for row in rows]


def probe_all() -> list[Capability]:
    """Everything that podnet can use on this machine, found out anew; leaves nothing behind."""
    return _probe(_ROWS)


def require(names: Collection[str] | None = None) -> None:
    """Check that the capabilities of these names are there, by default all without which no lab runs.

    Takes a few milliseconds, and touches nothing. One of which nothing can be told is taken to be there.
    Raises ``CapabilityError`` with a line for each one that is missing: what it is for, what was seen, how to get
    it; ``ValueError`` for a name that is no capability's.
    """
    if names is None:
        names = {row.name for row in _ROWS if row.required}
    unknown = sorted(set(names) - {row.name for row in _ROWS})
    if unknown:
        msg = f"no such capability: {', '.join(unknown)}"
        raise ValueError(msg)
    missing = [each for each in _probe([row for row in _ROWS if row.name in names]) if each.found == "no"]
    if missing:
        lines = [f"  {each.name}, for {each.needed_for}: {each.detail}. Get it: {each.remedy}" for each in missing]
        raise CapabilityError("this machine lacks what is needed:\n" + "\n".join(lines))
