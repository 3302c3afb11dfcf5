"""Labs as JSON values, and back."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_interface
from typing import Any

from podnet.model.lab import Interface, Lab, Target
from podnet.model.topology import Expectation

__all__ = ["lab_from_json", "lab_to_json"]


def lab_to_json(lab: Lab) -> dict[str, Any]:
    """A lab as JSON values; keys as in ``status -o json``."""
    return {
        "name": lab.name,
        "versions": list(lab.versions),
        "targets": [_target(target) for target in lab.targets],
        "expect": [{f.name: getattr(e, f.name) for f in fields(e)} for e in lab.expect],
    }


def _target(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "kind": target.kind,
        "netns": target.netns,
        "node": target.node,
        "labels": dict(target.labels),
        "containers": list(target.containers),
        "interfaces": [
            {"name": i.name, "mac": i.mac, "mtu": i.mtu, "addresses": [str(a) for a in i.addresses]}
            for i in target.interfaces
        ],
    }


def lab_from_json(value: dict[str, Any]) -> Lab:
    """The lab that ``lab_to_json`` wrote."""
    targets = tuple(
        Target(
            name=t["name"],
            kind=t["kind"],
            netns=t["netns"],
            node=t["node"],
            labels=tuple(t["labels"].items()),
            containers=tuple(t["containers"]),
            interfaces=tuple(
                Interface(i["name"], i["mac"], i["mtu"], tuple(ip_interface(a) for a in i["addresses"]))
                for i in t["interfaces"]
            ),
        )
        for t in value["targets"]
    )
    expect = tuple(_expectation(each) for each in value["expect"])
    return Lab(value["name"], tuple(value["versions"]), targets, expect)


def _expectation(value: dict[str, Any]) -> Expectation:
    lists: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in value.items()}
    return Expectation(**lists)
