"""What this kernel can make, found out by making it: in a namespace without a name that ends with the trial.

Asking the kernel's configuration would be wrong both ways: a module may be missing, or be loaded on demand. Each
trial raises nothing; it returns (found, detail), where found is ``yes``, ``no`` or ``unknown``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from podnet.errors import PodnetError
from podnet.kernel import nft
from podnet.kernel.netlink import NetlinkSocket, attr, nested

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Finding",
    "bridge_vlan",
    "forward_policy",
    "ipvs",
    "ipv6",
    "link",
    "nftables",
    "packet_socket",
    "qdisc",
    "tun",
]

Finding = tuple[str, str]

# linux/rtnetlink.h, if_link.h, if_tunnel.h, if_bridge.h, pkt_sched.h, genetlink.h
_RTM_NEWLINK, _RTM_SETLINK, _RTM_NEWQDISC = 16, 19, 36
_CREATE = 0x400
_IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_AF_SPEC = 3, 5, 18, 26
_INFO_KIND, _INFO_DATA = 1, 2
_LO = 1
_TRIED, _UNDER = 77, 70  # indexes of the link on trial and of those below: a new namespace has only low ones
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TC_H_ROOT, _TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
_NETLINK_GENERIC = 16
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_NAME = 16, 3, 2

_U16, _U32 = struct.Struct("=H"), struct.Struct("=I")
_LOCALHOST = socket.inet_aton("127.0.0.1")


def _refused(messages: list[tuple[int, int, bytes]]) -> list[PodnetError]:
    sock = NetlinkSocket("")
    try:
        return list(sock.execute(messages))
    finally:
        sock.close()


def _verdict(refused: list[PodnetError], *absent: int) -> Finding:
    """``no`` where the first refusal has one of the errnos that mean "never heard of it"."""
    if not refused:
        return "yes", ""
    return "no" if getattr(refused[0], "errno", 0) in absent else "unknown", str(refused[0])


# --- links ------------------------------------------------------------------------------------------------------

_LINK_DATA: dict[str, bytes] = {
    "vxlan": attr(1, _U32.pack(7)) + attr(15, b"\x12\xb5"),  # IFLA_VXLAN_ID, IFLA_VXLAN_PORT 4789
    "geneve": attr(1, _U32.pack(7)) + attr(2, _LOCALHOST),  # IFLA_GENEVE_ID, IFLA_GENEVE_REMOTE
    "ipip": attr(2, _LOCALHOST) + attr(3, _LOCALHOST),  # IFLA_IPTUN_LOCAL, IFLA_IPTUN_REMOTE
    "vlan": attr(1, _U16.pack(7)),  # IFLA_VLAN_ID
}
# These stand on another link; macvlan and ipvlan both want it to themselves.
_STACKED = {"ipvlan": _UNDER, "macvlan": _UNDER + 1, "vlan": _UNDER + 2}


def _add(kind: str, index: int, *more: bytes) -> tuple[int, int, bytes]:
    data = nested(_INFO_DATA, _LINK_DATA[kind]) if kind in _LINK_DATA else b""
    info = nested(_IFLA_LINKINFO, attr(_INFO_KIND, kind.encode()), data)
    return _RTM_NEWLINK, _CREATE, struct.pack("=BxHiII", 0, 0, index, 0, 0) + b"".join(more) + info


def link(kind: str) -> Callable[[], Finding]:
    """A trial of one kind of link."""

    def trial() -> Finding:
        name = attr(_IFLA_IFNAME, f"t-{kind}".encode() + b"\0")
        if kind not in _STACKED:
            return _verdict(_refused([_add(kind, 0, name)]), errno.EOPNOTSUPP)
        under = _STACKED[kind]
        below = _refused([_add("bridge", under)])
        if below:
            return "unknown", f"no bridge to put it on: {below[0]}"
        return _verdict(_refused([_add(kind, 0, name, attr(_IFLA_LINK, _U32.pack(under)))]), errno.EOPNOTSUPP)

    return trial


def bridge_vlan() -> Finding:
    """VLAN filtering: a kernel without it ignores the flag, so put a VLAN on a bridge."""
    vlan = nested(_IFLA_AF_SPEC, attr(0, _U16.pack(2)), attr(2, struct.pack("=HH", 0, 7)))  # SELF, VLAN_INFO
    header = struct.pack("=BxHiII", socket.AF_BRIDGE, 0, _TRIED, 0, 0)
    refused = _refused([_add("bridge", _TRIED), (_RTM_SETLINK, 0, header + vlan)])
    return _verdict(refused, errno.EOPNOTSUPP)


# --- traffic control --------------------------------------------------------------------------------------------

_RATE = struct.pack("=BBHhHI", 0, 1, 0, 0, 0, 125_000)  # tc_ratespec: ethernet, 1 Mbit/s
_QDISC_OPTIONS: dict[str, bytes] = {
    "tbf": attr(1, _RATE + bytes(12) + struct.pack("=III", 10_000, 1_000_000, 0)) + attr(6, _U32.pack(2_000)),
    "htb": attr(2, struct.pack("=IIIII", 3, 10, 0, 0, 0)),  # TCA_HTB_INIT
    "netem": struct.pack("=IIIIII", 0, 1000, 0, 0, 0, 0),  # tc_netem_qopt
}


def qdisc(kind: str) -> Callable[[], Finding]:
    """A trial of one queueing discipline, on the namespace's own ``lo``."""

    def trial() -> Finding:
        parent, handle = (_TC_H_INGRESS, 0xFFFF0000) if kind == "ingress" else (_TC_H_ROOT, 0)
        header = struct.pack("=BxHiIII", 0, 0, _LO, handle, parent, 0)
        options = attr(_TCA_OPTIONS, _QDISC_OPTIONS[kind]) if kind in _QDISC_OPTIONS else b""
        message = header + attr(_TCA_KIND, kind.encode() + b"\0") + options
        refused = _refused([(_RTM_NEWQDISC, _CREATE | 0x100, message)])
        found, detail = _verdict(refused, errno.ENOENT, errno.EOPNOTSUPP)
        # Kernels differ in the errno for a kind that they do not know, not in its words.
        return ("no" if "kind is unknown" in detail else found), detail

    return trial


# --- nftables and the rest --------------------------------------------------------------------------------------


def nftables(name: str, ruleset: str) -> Callable[[], Finding]:
    """A trial of some rules, as the text between the braces of the ``inet`` table of that name."""

    def trial() -> Finding:
        try:
            # Not deleted afterwards: that would wait for RCU (20 ms), and the namespace takes it along.
            nft.run("", f"table inet {name} {{\n{ruleset}\n}}\n")
        except PodnetError as error:
            lines = str(error).splitlines()
            return "no", lines[0] if lines else "nft refused without a word"
        return "yes", ""

    return trial


def forward_policy() -> Finding:
    """Whether the machine's own firewall drops what is forwarded; reads the calling thread's namespace."""
    drops = _nft_drops()
    if _legacy_drops():
        drops.append("iptables-legacy: filter FORWARD")
    return ("no", "policy drop: " + ", ".join(drops)) if drops else ("yes", "nothing drops by policy")


def _nft_drops() -> list[str]:
    import json

    listed = json.loads(nft.run("", "list chains", as_json=True) or '{"nftables": []}')["nftables"]
    chains = [row["chain"] for row in listed if "chain" in row]
    dropping = [chain for chain in chains if chain.get("hook") == "forward" and chain.get("policy") == "drop"]
    return [f"nft {chain['family']} {chain['table']} {chain['name']}" for chain in dropping]


def _legacy_drops() -> bool:
    import shutil
    import subprocess

    # Only where the table is there already: the tool would make it.
    try:
        tables = Path("/proc/net/ip_tables_names").read_text(encoding="ascii").split()
    except OSError:
        return False
    tool = shutil.which("iptables-legacy", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if "filter" not in tables or tool is None:
        return False
    done = subprocess.run([tool, "-S", "FORWARD"], capture_output=True, text=True, timeout=5, check=False)
    return "-P FORWARD DROP" in done.stdout


def ipvs() -> Finding:
    """Whether the kernel answers for (or loads) the generic netlink family that ``ipvsadm`` talks to."""
    sock = NetlinkSocket("", _NETLINK_GENERIC)
    try:
        request = struct.pack("=BBH", _CTRL_CMD_GETFAMILY, 1, 0) + attr(_CTRL_ATTR_FAMILY_NAME, b"IPVS\0")
        return ("yes", "") if sock.get(_GENL_ID_CTRL, request) is not None else ("no", "no IPVS netlink family")
    finally:
        sock.close()


def ipv6() -> Finding:
    """Whether new namespaces have IPv6, and have it switched on."""
    try:
        off = [
            each
            for each in ("all", "default")
            if Path(f"/proc/sys/net/ipv6/conf/{each}/disable_ipv6").read_text(encoding="ascii").strip() != "0"
        ]
    except FileNotFoundError:
        return "no", "the kernel has no IPv6"
    return ("no", f"net.ipv6.conf.{off[0]}.disable_ipv6 is on in new namespaces") if off else ("yes", "")


def packet_socket() -> Finding:
    """Whether raw frames can be sent and seen.

    Closing a packet socket waits for RCU (6 to 13 ms). So ask for a type that the family does not have: it checks
    the privilege first and the type then, and a kernel without the family never gets there.
    """
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno != errno.ESOCKTNOSUPPORT:
            return "no", error.strerror or str(error)
    return "yes", ""


def tun() -> Finding:
    """Whether TUN devices can be opened."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return "no", f"/dev/net/tun: {error.strerror}"
    return "yes", ""
