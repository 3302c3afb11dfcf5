"""Who answered what ARP and neighbour discovery asked for, and whether that is who should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.probe.onlink import LINK_PROTOCOLS, question

if TYPE_CHECKING:
    from podnet.model.lab import Lab, Target
    from podnet.model.probe import Check
    from podnet.probe.ledger import Ledger

__all__ = ["Voices"]


class Voices:
    """Looks at the link-layer addresses that the ledger has of the answers."""

    def __init__(self, lab: Lab, ledger: Ledger) -> None:
        self._lab, self._ledger = lab, ledger
        self._targets: dict[str, Target] = {}

    def judge(self, check: Check, index: int, *, passed: bool, detail: str) -> tuple[bool, str]:
        """The same for other protocols; an answer of several hosts, or of another than the target, is no pass."""
        if check.protocol not in LINK_PROTOCOLS or index in self._ledger.failures:
            return passed, detail
        macs = self._ledger.macs.get(index, [])
        if not self._targets:
            self._targets = {target.name: target for target in self._lab.targets}
        source, target = self._targets[check.source], self._targets[check.target]
        known = {interface.mac for interface in target.interfaces if interface.mac}
        more = f"; {detail}" if detail else ""
        if len(macs) > 1:
            return False, f"duplicate address: {' and '.join(macs)} answer"
        if macs and known and macs[0] not in known:
            return False, f"{macs[0]} answers, which is not {check.target}'s{more}"
        if macs:
            return passed, f"{macs[0]} answers{more}"
        asks = question(self._lab, source, target, check.version)
        if asks is not None and not asks.shared:
            return passed, f"{check.target} is on no link of {check.source}{more}"
        return passed, detail
