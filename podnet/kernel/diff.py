"""The difference between what is wanted and what is there, with a reason per change; no effects."""

from __future__ import annotations

from typing import NamedTuple

from podnet.kernel.objects import (
    Address,
    Attached,
    BirdConf,
    Bridge,
    KernelObject,
    Key,
    Loopback,
    Neighbours,
    Netns,
    Process,
    Route,
    State,
    Sysctl,
    Tunnel,
    Veth,
    owned,
    replace,
)

__all__ = ["Change", "diff", "differing"]


class Change(NamedTuple):
    """One object that must change.

    ``action`` is ``create``, ``update``, ``recreate`` or ``delete``; ``new`` is ``None`` on delete, ``old`` is
    ``None`` on create; ``fields`` names what differs on update and recreate.
    """

    action: str
    new: KernelObject | None
    old: KernelObject | None
    reason: str
    fields: tuple[str, ...] = ()

    @property
    def object(self) -> KernelObject:
        """The object that this change is about."""
        found = self.new or self.old
        assert found is not None  # noqa: S101 - one of both is always set
        return found

    def __str__(self) -> str:
        return f"{self.action} {self.object}: {self.reason}"


# What cannot be changed on an object that exists. An address and an attachment are only ever added and deleted.
_FIXED = {
    "veth": {"peer", "peer_netns"},
    "address": {"protocol"},
    "attachment": {"node", "network", "config", "path", "state"},
    "vxlan": {"type", "options"},
    "ipip": {"type", "options"},
    "wireguard": {"type"},
    "qdisc": {"type", "settings"},  # netem keeps what a change does not name
}
# What has more to it than its namespace, and does not vanish with that.
_SURVIVORS = Netns | Process | BirdConf | Attached


def differing(wanted: KernelObject, found: KernelObject) -> tuple[str, ...]:
    """The names of the fields in which two states of one object differ."""
    return tuple(name for name in wanted._fields if getattr(wanted, name) != getattr(found, name))


def diff(wanted: State, found: State, group: int) -> list[Change]:
    """What has to be done to ``found`` so that it becomes ``wanted``.

    Objects in ``found`` that do not carry podnet's mark (``group`` on links) are never deleted. What vanishes
    by itself with a deleted namespace or link is not listed, and what a recreated link takes along is listed
    as created again. What the kernel takes along with a smaller change (the routes of a link's last address,
    the neighbours of a link whose MAC changes) is listed as recreated, so that one pass is enough.
    """
    dying = {old.name for key, old in found.items() if isinstance(old, Netns) and key not in wanted}
    deleted = {
        key: old
        for key, old in found.items()
        # A process outlives the name of its namespace, and plugins have written down what they gave.
        if key not in wanted and owned(old, group) and (isinstance(old, _SURVIVORS) or old.netns not in dying)
    }
    renewed = _renewed(wanted, found)
    remaining = _remaining(found, dying, {key for key in (*renewed, *deleted) if key[0] == "link"})
    renewed |= _taken_along(wanted, found, remaining, deleted)
    changes = [
        Change("delete", None, old, "not in the topology")
        for key, old in deleted.items()
        if key in remaining and not _goes_with_peer(old, deleted)
    ]
    for key, new in wanted.items():
        was = remaining.get(key)
        if was is None:
            changes.append(Change("create", new, None, "is missing"))
        elif was != new or key in renewed:
            changes.append(_changed(new, was, renewed.get(key)))
    return changes


def _changed(new: KernelObject, was: KernelObject, renewal: str | None) -> Change:
    """The change of an object that is there; where it must be made anew, ``renewal`` is why."""
    if type(was) is not type(new):
        return Change("recreate", new, was, f"is a {was.kind}, should be a {new.kind}")
    names = differing(new, was)
    reasons = [_difference(name, getattr(was, name), getattr(new, name)) for name in names]
    anew = renewal is not None or _fixed(new, was)
    return Change("recreate" if anew else "update", new, was, ", ".join(filter(None, [*reasons, renewal])), names)


def _fixed(new: KernelObject, was: KernelObject) -> bool:
    """Whether the kernel cannot turn one into the other."""
    return type(was) is not type(new) or bool(_FIXED.get(new.kind, set()) & set(differing(new, was)))


def _difference(name: str, was: object, new: object) -> str:
    match name, new:
        case "entries", tuple():
            return _entries(set(was) if isinstance(was, tuple) else set(), set(new))
        case "settings", tuple():
            from podnet.kernel.impairment import described

            return f"is {described(was if isinstance(was, tuple) else ())}, should be {described(new)}"
        case "options", tuple():
            return _options(dict(was) if isinstance(was, tuple) else {}, dict(new))
        case "up", _:
            return "is up, should be down" if was else "is down, should be up"
        case "text", str():
            return _lines(str(was).splitlines(), new.splitlines())
        case "ruleset", _:
            return "its rules differ"
        case "config", _:
            return "its configuration differs"
        case "state", _:
            return str(was)
        case "master", "":
            return f"is a port of {was}, should be of none"
        case _, bool():
            return f"{name} is {'on' if was else 'off'}, should be {'on' if new else 'off'}"
        case _:
            return f"{name} is {_shown(was)}, should be {_shown(new)}"


def _entries(was: set[tuple[str, str]], new: set[tuple[str, str]]) -> str:
    lacks = [f"{address} lladdr {mac}" for address, mac in sorted(new - was)]
    extra = [address for address, _ in sorted(was - new) if address not in {entry[0] for entry in new}]
    parts = [f"lacks {_some(lacks)}"] if lacks else []
    parts += [f"has {_some(extra)} besides"] if extra else []
    return ", ".join(parts)


def _options(was: dict[str, str], new: dict[str, str]) -> str:
    names = [name for name in {**new, **was} if was.get(name) != new.get(name)]
    return ", ".join(f"{name} is {_shown(was.get(name, ''))}, should be {_shown(new.get(name, ''))}" for name in names)


def _lines(was: list[str], new: list[str]) -> str:
    lacks = [line.strip() for line in new if line not in was and line[:1] != "#"]
    extra = [line.strip() for line in was if line not in new and line[:1] != "#"]
    parts = [f"lacks '{_some(lacks)}'"] if lacks else []
    parts += [f"has '{_some(extra)}' besides"] if extra else []
    return ", ".join(parts) or "its comments differ"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(map(str, value)) + "]"
    return str(value) if value != "" else "none"


def _renewed(wanted: State, found: State) -> dict[Key, str]:
    """What must be made anew: links, with both ends of a pair, and processes of a lost namespace.

    The value says why, and is empty where the object's own differences say it.
    """
    renewed: dict[Key, str] = {}
    bare = {each.netns for key, each in wanted.items() if isinstance(each, Process) and key not in found}
    for key, new in wanted.items():
        was = found.get(key)
        if isinstance(new, Route) and new.learned and was is not None and new.netns in bare:
            renewed[key] = "the daemon that learned it is gone"
        if isinstance(new, Process) and was is not None and new.netns and ("netns", new.netns) not in found:
            renewed[key] = "runs in a namespace that has lost its name"
        if not isinstance(new, Bridge | Veth | Tunnel):
            continue
        if was is not None and _fixed(new, was):
            renewed[key] = ""
        if isinstance(new, Veth) and (was is None or key in renewed) and new.peer_key in found:
            # The kernel makes both ends or none.
            renewed.setdefault(
                new.peer_key, "its other end is missing" if was is None else "its other end is made anew"
            )
    return renewed


def _remaining(found: State, dying: set[str], doomed: set[Key]) -> State:
    """``found`` without what goes away with namespaces and ``doomed`` links; those themselves stay in it."""
    if not dying and not doomed:
        return found
    gone = {(key[1], key[2]) for key in doomed}
    gone |= {(end.peer_netns, end.peer) for key in doomed if isinstance(end := found[key], Veth)}
    kept: State = {}
    for key, was in found.items():
        if was.netns in dying and not isinstance(was, _SURVIVORS):
            continue
        if (was.netns, _device(was)) in gone:
            continue
        # A port whose bridge goes away loses its master.
        free = isinstance(was, Veth) and (was.netns, was.master) in gone
        kept[key] = replace(was, master="", hairpin=False) if isinstance(was, Veth) and free else was
    return kept


def _device(each: KernelObject) -> str | None:
    """The link that an object hangs on and goes away with."""
    if isinstance(each, Sysctl):
        parts = each.name.split("/")  # net/ipv4/conf/eth0/rp_filter
        return parts[3] if len(parts) == 5 and parts[2] in {"conf", "neigh"} else None
    return getattr(each, "dev", None)


def _taken_along(wanted: State, found: State, remaining: State, deleted: State) -> dict[Key, str]:
    """What stands as wanted, but does not survive what is done to the link or address that it hangs on; and why.

    It is deleted and added again, because what the kernel really takes depends: on ``promote_secondaries`` for
    addresses, on the family for routes.
    """
    leaving = {
        key
        for key, each in found.items()
        if isinstance(each, Address)
        and (key not in remaining or key in deleted or (key in wanted and _fixed(wanted[key], each)))
    }
    taken = _secondaries(wanted, remaining, leaving)
    leaving |= taken.keys()
    # The last IPv4 address of a link takes the IPv4 routes and neighbours along (fib_disable_ip).
    staying = {(a.netns, a.dev) for k, a in remaining.items() if isinstance(a, Address) and k not in leaving and _v4(a)}
    bare = {(key[1], key[2]) for key in leaving if ":" not in key[3]} - staying
    sources = {(key[1], key[3].partition("/")[0]) for key in leaving}
    downed, remade = set(), set()
    for key, was in remaining.items():
        new = wanted.get(key)
        if isinstance(was, Loopback | Bridge | Veth | Tunnel) and type(new) is type(was) and new != was:
            downed |= {(was.netns, was.name)} if was.up and not getattr(new, "up", True) else set()
            remade |= {(was.netns, was.name)} if getattr(was, "mac", "") != getattr(new, "mac", "") else set()
    if not (leaving or downed or remade):
        return taken
    for key, each in remaining.items():
        if key not in wanted or not isinstance(each, Address | Route | Neighbours):
            continue
        on = (each.netns, each.dev)
        if isinstance(each, Route) and (each.netns, each.src) in sources:
            taken[key] = f"its source {each.src} is deleted first"
        elif on in bare and _v4(each) and not isinstance(each, Address):
            taken[key] = f"goes with the addresses of {each.dev}"
        elif on in remade and isinstance(each, Neighbours):
            taken[key] = f"goes when {each.dev} gets another MAC"
        elif on in downed and not (isinstance(each, Address) and _v4(each)):
            taken[key] = f"goes when {each.dev} is set down"
    return taken


def _secondaries(wanted: State, remaining: State, leaving: set[Key]) -> dict[Key, str]:
    """The addresses that go with the first one of their network on their link."""
    from ipaddress import ip_interface

    links = {(key[1], key[2]) for key in leaving}
    first: dict[tuple[str, str, str], Address] = {}
    taken = {}
    for key, each in remaining.items():
        if not isinstance(each, Address) or not _v4(each) or (each.netns, each.dev) not in links:
            continue
        head = first.setdefault((each.netns, each.dev, str(ip_interface(each.address).network)), each)
        if head.key in leaving and key not in leaving and key in wanted:
            taken[key] = f"shares its network with {head.address}, which is deleted first"
    return taken


def _v4(each: Address | Route | Neighbours) -> bool:
    if isinstance(each, Neighbours):
        return each.version == 4
    return ":" not in (each.dst if isinstance(each, Route) else each.address)


def _goes_with_peer(old: KernelObject, deleted: State) -> bool:
    """Whether the other end of a pair is deleted: one is enough, the bridge's port or else the first by key."""
    if not isinstance(old, Veth):
        return False
    other = deleted.get(old.peer_key)
    return isinstance(other, Veth) and (not other.master, other.key) < (not old.master, old.key)
