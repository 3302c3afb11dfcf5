"""Faults of hosts: addresses, what a host answers, what runs in it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from podnet.fault.model import Fault
from podnet.fault.site import Place, Site, Trip
from podnet.fault.step import (
    Step,
    address_added,
    address_deleted,
    containers_stopped,
    prefix_changed,
    sysctl_changed,
)
from podnet.kernel.objects import Address

__all__ = ["FAULTS"]

_LENGTH = {4: 32, 6: 128}
_TOO_WIDE = {4: 8, 6: 32}


def _pods(site: Site, version: int) -> list[Place]:
    return [Place(pod.name) for pod in site.own("pod") if site.address(pod.name, version)]


def _found(site: Site, wanted: Address) -> Address:
    found = site.found.get(wanted.key)
    return found if isinstance(found, Address) else wanted


# -- addresses ----------------------------------------------------------------------------------------------


def _bridges(site: Site, version: int) -> list[Place]:
    return [Place(n.name) for n in site.own("node") if site.pods_of(n.name) and site.pod_cidr(n.name, version)]


def _delete_gateway(site: Site, place: Place, version: int) -> list[Step]:
    addresses = site.addresses(place.at, site.bridge(place.at), version)
    return [address_deleted(_found(site, each), site.found) for each in addresses]


def _by_bridge(site: Site, place: Place, version: int, trip: Trip) -> bool:
    """The node's own way to its pods, and the pods' way to their gateway."""
    if site.sends_on(trip, site.netns(place.at), site.bridge(place.at)):
        return True
    pods = site.pods_of(place.at)
    return any(site.sends_by(trip, pod.netns, site.gateway(pod.name, version)) for pod in pods)


def _delete_own(site: Site, place: Place, version: int) -> list[Step]:
    addresses = site.addresses(place.at, site.uplink(place.at), version)
    return [address_deleted(_found(site, each), site.found) for each in addresses]


def _with_pod(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return place.at in (trip.check.source, trip.check.target)


def _pairs(site: Site, version: int) -> list[Place]:
    return [Place(p.at, sibling) for p in _pods(site, version) for sibling in site.siblings(p.at)]


def _duplicate(site: Site, place: Place, version: int) -> list[Step]:
    address = f"{site.address(place.to, version)}/{_LENGTH[version]}"
    return [address_added(site.netns(place.at), site.uplink(place.at), address)]


def _of_duplicate(site: Site, place: Place, version: int, trip: Trip) -> bool | None:
    """The thief never reaches the owner. Whoever else asks gets two answers, and may take either."""
    ends = {trip.check.source, trip.check.target}
    if ends == {place.at, place.to}:
        return True
    if version == 6 and trip.check.source == place.at:
        return None  # IPv6 may choose the new address to send from
    return None if place.to in ends and len(ends) > 1 else False


def _far_pods(site: Site, version: int) -> list[Place]:
    return [p for p in _pods(site, version) if any(_too_near(site, p, version, trip) for trip in site.trips)]


def _widen(site: Site, place: Place, version: int) -> list[Step]:
    addresses = site.addresses(place.at, site.uplink(place.at), version)
    return [prefix_changed(_found(site, each), _TOO_WIDE[version], site.found) for each in addresses]


def _too_near(site: Site, place: Place, version: int, trip: Trip) -> bool:
    """What the pod sends by its gateway to where it now thinks it is itself."""
    netns, own = site.netns(place.at), site.address(place.at, version)
    if trip.check.version != version or not own:
        return False
    wide = ip_interface(f"{own}/{_TOO_WIDE[version]}").network
    return any(
        way.steps[0].netns == netns
        and ip_address(destination) in wide
        and site.world.lookup(netns, destination).prefix.endswith("/0")
        for way, destination, _ in trip.legs()
    )


# -- what a host answers ------------------------------------------------------------------------------------


def _ignore(site: Site, place: Place, version: int) -> list[Step]:
    name = "net/ipv4/icmp_echo_ignore_all" if version == 4 else "net/ipv6/icmp/echo_ignore_all"
    return [sysctl_changed(site.netns(place.at), name, "1", "0")]


def _pings(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return trip.check.protocol == "icmp" and trip.check.target == place.at


def _serving(site: Site, version: int) -> list[Place]:
    names = {trip.check.target for trip in site.trips if _served(trip)}
    return [Place(pod.name) for pod in site.own("pod") if pod.name in names and pod.containers]


def _served(trip: Trip) -> bool:
    return trip.check.port > 0 and not trip.check.listen and trip.check.verdict == "reach"


def _stop(site: Site, place: Place, version: int) -> list[Step]:
    return [containers_stopped([f"{place.at}/{name}" for name in site.target(place.at).containers])]


def _listener(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return _served(trip) and trip.check.target == place.at


FAULTS = (
    Fault(
        "bridge-without-address", "A node's bridge has lost the gateway's address.", ("address-missing",),
        _bridges, _delete_gateway, _by_bridge,
    ),
    Fault(
        "pod-address-missing", "A pod has lost its address, and its routes with it.", ("address-missing",),
        _pods, _delete_own, _with_pod,
    ),
    Fault(
        "duplicate-address", "A pod has taken another pod's address besides its own.", ("duplicate-address",),
        _pairs, _duplicate, _of_duplicate,
    ),
    Fault(
        "wrong-prefix-length", "A pod's prefix is so short that it takes pods of other nodes to be on its own link.",
        ("wrong-prefix",), _far_pods, _widen, _too_near,
    ),
    Fault(
        "icmp-ignored", "A pod answers no ICMP echo; all else works.", ("icmp-ignored",), _pods, _ignore, _pings,
    ),
    Fault(
        "listener-gone", "The containers of a pod have ended: nobody listens on its port.", ("port-closed",),
        _serving, _stop, _listener, versions="both",
    ),
)  # fmt: skip
