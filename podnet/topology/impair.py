"""Checks of ``impair``, and what it means."""

from __future__ import annotations

from podnet.kernel.impairment import lacking, settings_of
from podnet.model.topology import Impairment
from podnet.topology import schema
from podnet.topology.context import Context
from podnet.topology.problem import did_you_mean, quote
from podnet.topology.tree import Path

__all__ = ["check_impair", "impairments"]

_SETTINGS = ("delay", "jitter", "loss", "duplicate", "reorder", "corrupt", "rate")


def _given(entry: schema.Impairment) -> dict[str, int]:
    return {name: value for name in _SETTINGS if (value := getattr(entry, name)) is not None}


def impairments(context: Context) -> tuple[Impairment, ...]:
    """What the file's ``impair`` means; replicas of a pod one by one."""
    return tuple(
        Impairment(name, entry.interface, settings_of(**_given(entry)))
        for entry in context.file.impair
        for name in _names(context, entry.target)
    )


def _names(context: Context, target: str) -> list[str]:
    pod = next((pod for pod in context.file.pods if pod.name == target), None)
    return [target] if pod is None or pod.replicas is None else [f"{target}-{i}" for i in range(pod.replicas)]


def _devices(context: Context) -> dict[str, tuple[str, ...]]:
    """The interfaces of everything that can be impaired."""
    file = context.file
    found: dict[str, tuple[str, ...]] = {}
    for pod in file.pods:
        found[pod.name] = ("eth0",)
        found |= {f"{pod.name}-{i}": ("eth0",) for i in range(pod.replicas or 0)}
    for client in file.clients:
        found[client.name] = ("eth0",)
    for node in file.nodes:
        found[node.name] = ("eth0", file.networking.bridge)
    for router in file.underlay.routers:
        found[router.name] = tuple(f"eth{number}" for number in range(len(router.subnets)))
    return found


def check_impair(context: Context) -> None:
    """Targets and interfaces that are there, each impaired once, with settings that do something."""
    if not context.file.impair:
        return
    devices = _devices(context)
    seen: dict[tuple[str, str], int] = {}
    for i, entry in enumerate(context.file.impair):
        path: Path = ("impair", i)
        there = devices.get(entry.target)
        if there is None:
            if context.whole:
                message = f"there is no {quote(entry.target)} to impair"
                context.report((*path, "target"), message, did_you_mean(entry.target, list(devices)))
            continue
        if entry.interface not in there:
            message = f"{quote(entry.target)} has no interface {quote(entry.interface)}"
            context.report((*path, "interface"), message, did_you_mean(entry.interface, list(there)))
        given = _given(entry)
        if not given:
            context.report(path, f"nothing is impaired: write one of {', '.join(f'`{name}`' for name in _SETTINGS)}")
        elif lacking(given):
            context.report(path, lacking(given), "write `delay` too")
        first = seen.setdefault((entry.target, entry.interface), i)
        if first != i:
            line = context.span(("impair", first)).line
            message = f"{quote(entry.target)} is impaired already, on line {line}"
            context.report(path, message, "put both into one entry")
