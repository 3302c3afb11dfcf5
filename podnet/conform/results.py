"""The shape of an ADD result, version by version: what is wrong with a document, and the suite's own documents."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

__all__ = ["addresses", "converted", "problems", "reshaped", "routes", "version_tuple"]

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5,19}")


def version_tuple(version: str) -> tuple[int, ...]:
    """``1.1.0`` as numbers, for comparison."""
    return tuple(int(part) for part in version.split("."))


def problems(result: Any, version: str, *, ipam: bool) -> list[str]:
    """What in an ADD result is not as the specification of this version has it, one sentence each."""
    if not isinstance(result, dict):
        return [f"the result is no JSON object but {type(result).__name__}"]
    if version_tuple(version) < (0, 3, 0):
        return _oldest(result)
    found = []
    found += (
        _list_of_objects(result, "interfaces") + _list_of_objects(result, "ips") + _list_of_objects(result, "routes")
    )
    if found:
        return found
    if "ip4" in result or "ip6" in result:
        found.append("it has ip4 or ip6, which ended with version 0.2.0")
    interfaces = result.get("interfaces", [])
    if ipam and interfaces:
        found.append("an IPAM plugin's result has interfaces")
    for each in interfaces:
        if not isinstance(each.get("name"), str) or not each["name"]:
            found.append(f"an interface without a name: {each}")
        if each.get("mac") and not _MAC.fullmatch(str(each["mac"])):
            found.append(f"mac {each['mac']!r} of interface {each.get('name')} is no hardware address")
        for key in ("mtu", "socketPath", "pciID"):
            if key in each and version_tuple(version) < (1, 1, 0):
                found.append(f"interfaces[].{key} came with 1.1.0")
        if "mtu" in each and not _is_uint(each["mtu"]):
            found.append(f"interfaces[].mtu is {each['mtu']!r}, not a number")
    for each in result.get("ips", []):
        found += _ip(each, version, len(interfaces), ipam=ipam)
    for each in result.get("routes", []):
        found += _route(each, version)
    return found + _dns(result)


def _oldest(result: dict[str, Any]) -> list[str]:
    found = [f"it has {key}, which came with 0.3.0" for key in ("interfaces", "ips") if key in result]
    for key, family in (("ip4", 4), ("ip6", 6)):
        if key not in result:
            continue
        body = result[key]
        if not isinstance(body, dict) or "ip" not in body:
            found.append(f"{key} has no ip")
            continue
        found += _network(body["ip"], f"{key}.ip", family)
        for route in body.get("routes") or []:
            found += _network(route.get("dst"), f"{key}.routes[].dst", family)
    return found + _dns(result)


def _ip(each: dict[str, Any], version: str, interfaces: int, *, ipam: bool) -> list[str]:
    found = _network(each.get("address"), "ips[].address", None)
    if found:
        return found
    family = ipaddress.ip_interface(each["address"]).version
    if version_tuple(version) < (1, 0, 0):
        if each.get("version") != str(family):
            found.append(f"ips[].version is {each.get('version')!r}, must be {str(family)!r} before 1.0.0")
    elif "version" in each:
        found.append("ips[].version ended with 0.4.0")
    if "gateway" in each:
        try:
            ipaddress.ip_address(each["gateway"])
        except ValueError:
            found.append(f"ips[].gateway {each['gateway']!r} is no address")
    if "interface" in each and each["interface"] is not None:
        if ipam:
            found.append("an IPAM plugin's result has ips[].interface")
        elif not _is_uint(each["interface"]) or each["interface"] >= interfaces:
            found.append(f"ips[].interface {each['interface']!r} is no index into {interfaces} interfaces")
    return found


def _route(each: dict[str, Any], version: str) -> list[str]:
    found = _network(each.get("dst"), "routes[].dst", None)
    if each.get("gw"):
        try:
            ipaddress.ip_address(each["gw"])
        except ValueError:
            found.append(f"routes[].gw {each['gw']!r} is no address")
    for key in ("mtu", "advmss", "priority", "table", "scope"):
        if key in each and version_tuple(version) < (1, 1, 0):
            found.append(f"routes[].{key} came with 1.1.0")
    return found


def _dns(result: dict[str, Any]) -> list[str]:
    dns = result.get("dns", {})
    return [] if isinstance(dns, dict) else [f"dns is no object but {type(dns).__name__}"]


def _list_of_objects(result: dict[str, Any], key: str) -> list[str]:
    value = result.get(key)
    if value is None or (isinstance(value, list) and all(isinstance(each, dict) for each in value)):
        if value is None and key in result:
            result[key] = []
        return []
    return [f"{key} is no list of objects: {value!r}"]


def _network(text: Any, where: str, family: int | None) -> list[str]:
    try:
        if not isinstance(text, str) or "/" not in text:
            raise ValueError
        found = ipaddress.ip_interface(text)
    except ValueError:
        return [f"{where} {text!r} is not in CIDR notation"]
    return [] if family in {None, found.version} else [f"{where} {text!r} is of the wrong family"]


def _is_uint(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def addresses(result: dict[str, Any]) -> list[str]:
    """The addresses of a result of any version, with their prefix lengths."""
    new = [each["address"] for each in result.get("ips") or [] if isinstance(each, dict) and "address" in each]
    old = [result[key]["ip"] for key in ("ip4", "ip6") if isinstance(result.get(key), dict) and "ip" in result[key]]
    return new + old


def routes(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The routes of a result of any version."""
    old = [
        each for key in ("ip4", "ip6") if isinstance(result.get(key), dict) for each in result[key].get("routes") or []
    ]
    return list(result.get("routes") or []) + old


def converted(result: dict[str, Any], version: str) -> dict[str, Any]:
    """A plugin's result as a runtime hands it over in a configuration of another version (0.3.0 or newer)."""
    own = str(result.get("cniVersion", version))
    if own == version or not result.get("ips"):
        return {**result, "cniVersion": version}
    ips = [{key: value for key, value in each.items() if key != "version"} for each in result["ips"]]
    return reshaped({**result, "ips": ips}, version)


def reshaped(result: dict[str, Any], version: str) -> dict[str, Any]:
    """A result written in the shape of 1.0.0, as another version has it."""
    numbers = version_tuple(version)
    if numbers >= (1, 0, 0):
        return {**result, "cniVersion": version}
    if numbers >= (0, 3, 0):
        ips = [
            {"version": str(ipaddress.ip_interface(each["address"]).version), **each} for each in result.get("ips", [])
        ]
        return {**result, "cniVersion": version, "ips": ips, "dns": result.get("dns", {})}
    old: dict[str, Any] = {"cniVersion": version, "dns": result.get("dns", {})}
    for each in result.get("ips", []):
        family = ipaddress.ip_interface(each["address"]).version
        own = [r for r in result.get("routes", []) if ipaddress.ip_interface(r["dst"]).version == family]
        old.setdefault(f"ip{family}", {"ip": each["address"], "gateway": each.get("gateway", ""), "routes": own})
    return old
