"""Which nftables rules a packet meets: a table of one's own sets the trace mark, and the kernel tells of every rule.

The mark is set in the first chain of each hook that a packet can come in by, and gets lost where the packet
leaves its namespace: so each namespace on the way gets its table and its listener. Attributes: linux/netfilter/
nf_tables.h, NFTA_TRACE_*. (``nft monitor trace`` prints text only, up to 1.0.6 at least.)
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import KernelError
from podnet.kernel import nft
from podnet.kernel.netlink import attrs
from podnet.kernel.netns import open_socket

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RuleTrace", "Tracer", "ruled"]

_NETLINK_NETFILTER, _NFNLGRP_NFTRACE = 12, 9
_SOL_NETLINK, _ADD_MEMBERSHIP, _SO_RCVBUFFORCE = 270, 1, 33
_NFNL_SUBSYS_NFTABLES, _NFT_MSG_NEWTABLE, _NFT_MSG_GETTABLE, _NFT_MSG_TRACE = 10, 0, 1, 17
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _ID, _NETWORK, _TRANSPORT, _POLICY = 1, 2, 3, 4, 5, 6, 8, 9, 16
_VERDICT_CODE = 1
_TYPES = {1: "policy", 2: "return", 3: "rule"}
_CODES = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", 0xFFFFFFFF: "continue", 0xFFFFFFFE: "break",
          0xFFFFFFFD: "jump", 0xFFFFFFFC: "goto", 0xFFFFFFFB: "return"}  # fmt: skip
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

_CHAINS = """table {family} {name} {{
{flags}
chain in {{ type filter hook {first} priority -500; policy accept;
{lines}
}}
chain out {{ type filter hook output priority -500; policy accept;
{lines}
}}
}}
"""
_DISCOVERY = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"
# ARP has a family of its own, and a bridge has its say in it, as in what it passes on of IP.
_BESIDES = {"inet": [_DISCOVERY], "bridge": [_DISCOVERY, "ether type arp"]}


def ruled(netns: str) -> bool:
    """Whether a namespace has any table of nftables; without one there is no rule to trace. 0.1 ms.

    Raises ``KernelError`` where the namespace is gone or the kernel has no nftables.
    """
    sock = open_socket(netns, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    with sock:
        kind = _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_GETTABLE
        sock.send(struct.pack("=IHHIIBBH", 20, kind, _DUMP, 1, 0, 0, 0, 0))  # struct nlmsghdr, struct nfgenmsg
        (answer,) = struct.unpack_from("=H", sock.recv(65536), 4)
    return bool(answer == _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_NEWTABLE)


class RuleTrace(NamedTuple):
    """One rule, or a chain's policy, that a traced packet met; ``network`` and ``transport`` are its headers."""

    netns: str
    family: str
    table: str
    chain: str
    handle: int
    type: str  # rule | policy | return
    verdict: str
    network: bytes
    transport: bytes


class Tracer:
    """Traces in one namespace, from ``with`` to its end; ``match`` lines select packets, in nft's words.

    Raises ``KernelError`` where the namespace is gone or nftables refuses.
    """

    def __init__(self, netns: str, name: str, matches: Iterable[str]) -> None:
        self.netns, self._name = netns, name
        self._owned: nft.Owned | None = None
        self._rules: dict[tuple[str, str, str], dict[int, str]] = {}
        self._heads: dict[bytes, tuple[bytes, bytes]] = {}
        self._socket = open_socket(netns, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
            self._socket.bind((0, 0))  # the kernel tells a socket without a number of its own nothing
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTRACE)
            self._socket.setblocking(False)
            self._set(list(matches))
        except BaseException:
            self.close()
            raise

    def _set(self, matches: list[str]) -> None:
        """Make the tables, in all families if the kernel has them, else for IP only.

        This process is their owner where the kernel can have that, so that its death removes them too.
        """
        for families in (("inet", "bridge", "arp"), ("inet",)):
            with suppress(KernelError):
                self._owned = nft.Owned(self.netns, self._tables(families, matches, "flags owner;"))
                return
        nft.run(self.netns, self._tables(("inet",), matches, ""))

    def _tables(self, families: tuple[str, ...], matches: list[str], flags: str) -> str:
        tables = []
        for family in families:
            # ARP has no prerouting, and nothing that could be matched by an IP address.
            lines = ["meta nftrace set 1"]
            if family != "arp":
                lines = [f"{match} meta nftrace set 1" for match in (*matches, *_BESIDES[family])]
            first = "input" if family == "arp" else "prerouting"
            tables.append(
                _CHAINS.format(family=family, name=self._name, flags=flags, first=first, lines="\n".join(lines))
            )
        return "".join(tables)

    def close(self) -> None:
        """Take the tables away again."""
        if self._owned is not None:
            self._owned.close()
        else:
            with suppress(KernelError):  # the namespace may be gone, and the tables with it
                nft.delete(self.netns, "inet", self._name)
        self._socket.close()

    def read(self) -> list[RuleTrace]:
        """All that came so far, without what the tracer's own rules say."""
        found: list[RuleTrace] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue  # more than the buffer holds, a packet in a loop for one: the first ones are there
                raise
            offset = 0
            while offset + 20 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if length < 20:
                    break
                if kind == _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_TRACE:
                    trace = self._trace(data, offset + 20, offset + length)
                    if trace.table != self._name:
                        found.append(trace)
                offset += (length + 3) & ~3

    def _trace(self, data: bytes, start: int, end: int) -> RuleTrace:
        got = {kind: data[begin:stop] for kind, begin, stop in attrs(data, start, end)}
        text = {each: got.get(each, b"\0")[:-1].decode(errors="replace") for each in (_TABLE, _CHAIN)}
        kind = _TYPES.get(int.from_bytes(got.get(_TYPE, b""), "big"), "")
        verdict = got.get(_POLICY, b"") if kind == "policy" else b""
        for each, begin, stop in attrs(got.get(_VERDICT, b""), 0, len(got.get(_VERDICT, b""))):
            if each == _VERDICT_CODE:
                verdict = got[_VERDICT][begin:stop]
        family = data[start - 4]  # struct nfgenmsg
        number = got.get(_ID, b"")
        if _NETWORK in got:
            # Only the first message of a chain shows the packet; those that follow bear its number.
            self._heads[number] = (got[_NETWORK], got.get(_TRANSPORT, b""))
        return RuleTrace(
            self.netns, _FAMILIES.get(family, str(family)), text[_TABLE], text[_CHAIN],
            int.from_bytes(got.get(_HANDLE, b""), "big"), kind,
            _CODES.get(int.from_bytes(verdict, "big"), "") if verdict else "",
            *self._heads.get(number, (b"", b"")),
        )  # fmt: skip

    def text_of(self, trace: RuleTrace) -> str:
        """The rule as nft lists it, comment included; a chain's policy in nft's words; empty if it is gone."""
        if trace.type == "policy":
            return f"policy {trace.verdict}"
        key = (trace.family, trace.table, trace.chain)
        if key not in self._rules:
            self._rules[key] = self._listed(*key)
        return self._rules[key].get(trace.handle, "")

    def _listed(self, family: str, table: str, chain: str) -> dict[int, str]:
        try:
            listing = nft.listing_with_handles(self.netns, family, table)
        except KernelError:
            return {}
        rules, here = {}, ""
        for line in (each.strip() for each in listing.splitlines()):
            if begun := re.fullmatch(r"chain (\S+) \{(?: # handle \d+)?", line):
                here = begun[1]
            elif here == chain and (rule := re.fullmatch(r"(.*) # handle (\d+)", line)):
                rules[int(rule[2])] = rule[1]
        return rules
