"""The plugin as a later one of a chain: one part (``mode``) for an attachment that another plugin has made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.cni.plugin import parts
from podnet.cni.plugin.add import check_netns, undone
from podnet.cni.plugin.call import turn
from podnet.cni.spec.errors import INTERNAL, INVALID_CONFIG, CNIError
from podnet.cni.spec.result import to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from podnet.cni.plugin.call import Call
    from podnet.cni.spec.result import Result

__all__ = ["add", "check", "collect", "delete", "status"]


def add(call: Call) -> dict[str, Any]:
    """Make the part for the addresses of ``prevResult``, and pass that on. Raises ``PodnetError``, leaving nothing."""
    result = _previous(call, "must be called as chained plugin")
    inode = check_netns(call)
    parts.wanted(call)
    with turn(call.state, call.owner), call.books(call.state) as book, undone() as undo:
        call.refuse_abandoned()
        return _answer(call, parts.add(call, book, inode, result, undo))


def check(call: Call) -> None:
    """Raise ``CNIError`` 999 with every difference in its details, 7 without ``prevResult``."""
    result = _previous(call, "Required prevResult missing")
    check_netns(call)
    problems = parts.lacking(call, result)
    if problems:
        msg = f"{call.settings.mode} of container {call.owner.container_id} is not as ADD has made it"
        raise CNIError(INTERNAL, msg, "; ".join(problems))


def delete(call: Call, mode: str) -> None:
    """DEL: the part of this attachment, as it is written down."""
    with turn(call.state, call.owner), call.books(call.state) as book:
        parts.remove(call.machine, book, call.owner, [mode])


def collect(call: Call, mode: str) -> None:
    """GC: the part of all attachments of this network that are not valid."""
    valid, network = call.config.valid_attachments, call.config.name
    if valid is None:
        raise CNIError(INTERNAL, "GC without the list of valid attachments")
    with call.books(call.state) as book:
        dead = [each for each in book.part_owners(network, mode) if (each.container_id, each.ifname) not in valid]
        steps: list[Callable[[], object]] = [
            lambda owner=owner: parts.remove(call.machine, book, owner, [mode])  # type: ignore[misc]
            for owner in dead
        ]
        steps.append(lambda: parts.drop_tables(call.machine, book, network, [mode]))
        parts.all_of(steps)


def status(call: Call) -> None:
    """Raise ``CNIError`` where ADD would be refused for its keys."""
    parts.wanted(call)


def _answer(call: Call, result: Result) -> dict[str, Any]:
    """The result; ``prevResult`` as it came, with what we know nothing of, where the part has added nothing to it."""
    given, version = call.config.document.object("prevResult"), call.config.version
    if result == call.config.prev_result and given is not None and given.text("cniVersion") in ("", version):
        return {**given.raw, "cniVersion": version}
    return to_json(result, version)


def _previous(call: Call, complaint: str) -> Result:
    if call.config.prev_result is None:
        raise CNIError(INVALID_CONFIG, complaint, f"mode {call.settings.mode} is for a later plugin of a chain")
    return call.config.prev_result
