"""All faults by name."""

from __future__ import annotations

from podnet.errors import UsageError
from podnet.fault import hosts, links, machine, routes, rules
from podnet.fault.model import Fault

__all__ = ["FAULTS", "named"]

FAULTS: tuple[Fault, ...] = (
    *routes.FAULTS,
    *links.FAULTS,
    *hosts.FAULTS,
    *rules.FAULTS,
    *machine.FAULTS,
)


def named(name: str) -> Fault:
    """The fault of a name. Raises ``UsageError`` with what was perhaps meant."""
    found = next((fault for fault in FAULTS if fault.name == name), None)
    if found is None:
        from difflib import get_close_matches

        close = get_close_matches(name, [fault.name for fault in FAULTS], 1)
        hint = f"did you mean {close[0]}?" if close else "'podnet fault list' shows all"
        msg = f"there is no fault {name!r}: {hint}"
        raise UsageError(msg)
    return found
