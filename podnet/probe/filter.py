"""The classic BPF program that lets only this run's packets into a capture.

The socket is of type SOCK_DGRAM, so offset 0 is the IP header on every kind of device. The program runs in the
kernel for every packet that enters the namespace, and keeps what a node merely forwards out of Python.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import TYPE_CHECKING

from podnet.probe.sctp import ABORT, INIT, INIT_ACK
from podnet.probe.stamp import ANSWER, REQUEST

if TYPE_CHECKING:
    from collections.abc import Collection

    from podnet.probe.stamp import Run

__all__ = ["NOTHING", "attach", "neighbours", "program", "syns"]

# linux/bpf_common.h, linux/filter.h
_LD_W_ABS, _LD_H_ABS, _LD_B_ABS = 0x20, 0x28, 0x30
_LD_W_IND, _LD_H_IND, _LD_B_IND = 0x40, 0x48, 0x50
_LDX_IMM, _LDX_IHL = 0x01, 0xB1
_AND, _JEQ, _JSET, _JA, _RET = 0x54, 0x15, 0x45, 0x05, 0x06
_PROTOCOL = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_PKTTYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE
_SO_ATTACH_FILTER = 26

_SNAP = 256  # bytes: an ICMPv6 error with its quote of a probe has 112
_MOST_ADDRESSES = 16  # a jump reaches 255 instructions; decoding checks the address again anyway

# One instruction, "return 0": a socket with this filter receives nothing, and its port counts as open.
NOTHING = struct.pack("HBBI", _RET, 0, 0, 0)

_Line = str | tuple[int, int] | tuple[int, int, str, str]


def program(version: int, run: Run, own: Collection[bytes] | None) -> bytes:
    """``struct sock_filter[]`` that accepts the run's packets which are addressed to one of the ``own`` addresses.

    Accepted are requests, answers and ICMP errors that arrive for this host (PACKET_HOST): never what a bridge
    port overhears, nor what leaves. ``None``: all that passes, in and out, on a socket of ETH_P_ALL.
    """
    lines: list[_Line] = [(_LD_B_ABS, _PKTTYPE), (_JEQ, 0, "", "drop")]
    if own is None:
        lines = [(_LD_H_ABS, _PROTOCOL), (_JEQ, _ETHERTYPES[version], "", "drop")]
    elif len(own) <= _MOST_ADDRESSES:
        lines += _own_only(version, own)
    if version == 4:
        lines += [
            (_LD_H_ABS, 6),
            (_JSET, 0x1FFF, "drop", ""),  # not the first fragment: no header to read
            (_LDX_IHL, 0),
            (_LD_B_ABS, 9),
            (_JEQ, 1, "", "not icmp"),
            (_LD_B_IND, 0),
            *_any_of((8, 0), "stamped"),
            *_any_of((3, 11, 12), "error"),
            (_JA, 0, "drop", ""),
            "error",
            (_LD_H_IND, 8 + 4),
            (_JEQ, run.identification, "accept", "drop"),
        ]
    else:
        lines += [
            (_LDX_IMM, 40),
            (_LD_B_ABS, 6),
            (_JEQ, 58, "", "not icmp"),
            (_LD_B_IND, 0),
            *_any_of((128, 129), "stamped"),
            *_any_of((1, 2, 3, 4), "error"),
            (_JA, 0, "drop", ""),
            "error",
            (_LD_W_IND, 8),
            (_AND, 0xFFFFF),
            (_JEQ, run.flow_label, "accept", "drop"),
        ]
    lines += [
        "not icmp",
        (_JEQ, 17, "stamped", ""),
        (_JEQ, 132, "sctp", ""),
        (_JEQ, 6, "", "drop"),
        (_LD_B_IND, 13),
        (_AND, 0x17),  # FIN, SYN, RST, ACK
        (_JEQ, 0x02, "syn", ""),
        *_any_of((0x12, 0x14), "reply"),
        (_JA, 0, "drop", ""),
        "syn",
        (_LD_B_IND, 4),
        (_JEQ, run.sequence_byte, "accept", "drop"),
        "reply",
        (_LD_B_IND, 8),
        (_JEQ, run.sequence_byte, "accept", "drop"),
        "sctp",
        (_LD_B_IND, 12),  # the type of the first chunk
        (_JEQ, INIT, "init", ""),
        *_any_of((INIT_ACK, ABORT), "init answered"),
        (_JA, 0, "drop", ""),
        "init",
        (_LD_B_IND, 16),
        (_JEQ, run.sequence_byte, "accept", "drop"),
        "init answered",
        (_LD_B_IND, 4),
        (_JEQ, run.sequence_byte, "accept", "drop"),
        "stamped",
        (_LD_W_IND, 8),
        *_any_of((int.from_bytes(REQUEST, "big"), int.from_bytes(ANSWER, "big")), "magic"),
        (_JA, 0, "drop", ""),
        "magic",
        (_LD_W_IND, 12),
        (_JEQ, run.number, "accept", "drop"),
        "accept",
        (_RET, _SNAP),
        "drop",
        (_RET, 0),
    ]
    return _assembled(lines)


def syns(version: int, run: Run, port: int) -> bytes:
    """The same for a raw TCP socket: the run's SYNs to one port. It is given IPv4's header, but not IPv6's."""
    return _assembled([
        (_LDX_IHL, 0) if version == 4 else (_LDX_IMM, 0),
        (_LD_H_IND, 2),
        (_JEQ, port, "", "drop"),
        (_LD_B_IND, 13),
        (_AND, 0x17),  # FIN, SYN, RST, ACK
        (_JEQ, 0x02, "", "drop"),
        (_LD_B_IND, 4),
        (_JEQ, run.sequence_byte, "", "drop"),
        (_RET, _SNAP),
        "drop",
        (_RET, 0),
    ])  # fmt: skip


def neighbours(version: int, own: Collection[bytes]) -> bytes:
    """Lets ARP (4) or neighbour discovery (6) pass that asks for, or answers, one of the ``own`` addresses."""
    few = len(own) <= (_MOST_ADDRESSES if version == 4 else _MOST_ADDRESSES // 2)
    if version == 4:
        lines: list[_Line] = [(_LD_W_ABS, 24)]  # the target's protocol address
        lines += [(_JEQ, int.from_bytes(address, "big"), "accept", "") for address in own] if few else []
        lines += [] if few else [(_JA, 0, "accept", "")]
    else:
        lines = [(_LD_B_ABS, 6), (_JEQ, 58, "", "drop"), (_LD_B_ABS, 40)]
        lines += [(_JEQ, 135, "solicited", ""), (_JEQ, 136, "", "drop")]
        lines += [*(_own_only(6, own) if few else []), (_JA, 0, "accept", ""), "solicited"]
        lines += _own_only(6, own, 48, "solicited ") if few else []
        lines += [(_JA, 0, "accept", "")]
    return _assembled([*lines, (_JA, 0, "drop", ""), "accept", (_RET, _SNAP), "drop", (_RET, 0)])


def _any_of(values: tuple[int, ...], label: str) -> list[_Line]:
    return [(_JEQ, value, label, "") for value in values]


def _own_only(version: int, own: Collection[bytes], at_byte: int = 24, prefix: str = "") -> list[_Line]:
    """Drop what has none of these addresses at its destination, or of IPv6 at another byte; labels get the prefix."""
    lines: list[_Line] = []
    if version == 4:
        lines.append((_LD_W_ABS, 16))
        lines += [(_JEQ, int.from_bytes(address, "big"), "own", "") for address in own]
    else:
        for number, address in enumerate(own):
            words = struct.unpack("!4I", address)
            for at, word in enumerate(words):
                found = f"{prefix}own" if at == 3 else ""
                lines += [(_LD_W_ABS, at_byte + 4 * at), (_JEQ, word, found, f"{prefix}next {number}")]
            lines.append(f"{prefix}next {number}")
    return [*lines, (_JA, 0, "drop", ""), f"{prefix}own"]


def _assembled(lines: list[_Line]) -> bytes:
    """Resolve labels; the empty label is the next instruction."""
    at: dict[str, int] = {}
    code: list[tuple[int, int] | tuple[int, int, str, str]] = []
    for line in lines:
        if isinstance(line, str):
            at[line] = len(code)
        else:
            code.append(line)
    out = bytearray()
    for here, instruction in enumerate(code):
        op, k = instruction[:2]
        yes = no = 0
        if len(instruction) == 4:
            yes, no = (at[label] - here - 1 if label else 0 for label in instruction[2:])
        if op == _JA:
            k, yes, no = yes, 0, 0
        out += struct.pack("HBBI", op, yes, no, k)
    return bytes(out)


def attach(sock: socket.socket, instructions: bytes) -> None:
    """Give a socket its filter. What was queued before stays queued: the reader has to check for itself."""
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    fprog = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(buffer))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
