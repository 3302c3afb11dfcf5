"""DEL and GC: what an attachment has left, found by its key alone, and taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.cni.plugin import ipam, masquerade
from podnet.cni.plugin.call import host_end
from podnet.cni.spec.errors import INTERNAL, CNIError, as_cni_error
from podnet.errors import PodnetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.cni.plugin.call import Call
    from podnet.ipam.ledger import Ledger, Owner

__all__ = ["collect", "delete"]


def delete(call: Call) -> None:
    """DEL: all that there is of this attachment; what is gone already is no error. Raises ``CNIError`` at the end."""
    with call.ledger() as ledger:
        steps: list[Callable[[], object]] = [lambda: _clean(call, ledger, call.owner)]
        if ipam.delegated(call.config):
            steps.append(lambda: ipam.delegate(call.machine, call.config, call.environ, "DEL"))
        _all(steps)


def collect(call: Call) -> None:
    """GC: all attachments of this network that are not valid. Raises ``CNIError`` with all that failed, at the end."""
    valid = call.config.valid_attachments
    if valid is None:
        raise CNIError(INTERNAL, "GC without the list of valid attachments")
    with call.ledger() as ledger:
        dead = [
            h.owner for h in ledger.holders(call.config.name) if (h.owner.container_id, h.owner.ifname) not in valid
        ]
        steps: list[Callable[[], object]] = [lambda owner=owner: _clean(call, ledger, owner) for owner in dead]  # type: ignore[misc]
        steps.append(lambda: _drop_table(call, ledger))
        if ipam.delegated(call.config):
            steps.append(lambda: ipam.delegate(call.machine, call.config, call.environ, "GC"))
        _all(steps)


def _clean(call: Call, ledger: Ledger, owner: Owner) -> None:
    """First the link, then the rules, then what is written down of it: a call that is killed can be made again."""
    seen = host_end(call.machine, owner)
    if seen is not None:
        call.machine.delete_link(seen.name)
    if ledger.holder(owner) is None and not ledger.leases(owner):
        return
    # In the transaction, so that nobody gets the address between the look at the others and the removal.
    with ledger.transaction():
        holder = ledger.holder(owner)
        if holder is not None and holder.masquerade:
            others = {a for h in ledger.holders(owner.network) if h.owner != owner for a in h.masquerade}
            masquerade.remove(call.machine, owner.network, [a for a in holder.masquerade if a not in others])
        ledger.forget(owner)


def _drop_table(call: Call, ledger: Ledger) -> None:
    with ledger.transaction():
        if not any(each.masquerade for each in ledger.holders(call.config.name)):
            masquerade.remove_table(call.machine, call.config.name)


def _all(steps: list[Callable[[], object]]) -> None:
    """Take every step; raise what went wrong at the end, the first error's code in front."""
    errors = []
    for step in steps:
        try:
            step()
        except PodnetError as error:
            errors.append(as_cni_error(error))
    if errors:
        first = errors[0]
        raise CNIError(first.code, first.msg, "; ".join(filter(None, [first.details, *map(str, errors[1:])])))
