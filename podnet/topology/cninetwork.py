"""``networking.cni``: the CNI configuration list that attaches a lab's pods, and what it means on each node."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podnet.cni.runtime import conflist
from podnet.model.topology import CniNetwork
from podnet.topology.problem import Problem, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podnet.model.placement import PlacedNode
    from podnet.topology.context import Context

__all__ = ["config_of", "plugin_types", "read_cni"]

MAX_BYTES = 1 << 20
_WORD = re.compile(r"\$\{([^}]*)\}")
_WORDS = (
    "node", "mtu", "podCIDR", "podCIDRv4", "podCIDRv6", "podGateway", "podGatewayv4", "podGatewayv6",
)  # fmt: skip
_KEEPS_FILES = {"host-local", "podnet"}  # IPAM types whose files would otherwise be the machine's
_FOLDERS = (str(Path(__file__).parents[2] / "cni"), "/usr/lib/cni", "/opt/cni/bin")


def read_cni(context: Context, path: str) -> list[Problem]:
    """Read the list that the file names into the context; what is wrong with it, or with what else the file says."""
    networking = context.file.networking
    here = os.path.dirname(os.path.abspath(path)) if path not in {"<stdin>", "<text>"} else os.getcwd()
    named = networking.cni or ""
    file = os.path.join(here, named)
    span = context.span(("networking", "cni"))
    try:
        text = _read(file)
        found = conflist.reread(text.encode(), named)
        unknown = sorted({word for word in _WORD.findall(text) if word not in _WORDS})
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return [Problem(span, f"{quote(named)} cannot be read: {why}", "a path is relative to this file")]
    except conflist.ConflistError as error:
        return [Problem(span, f"it is no CNI configuration list: {error}", "")]
    if unknown:
        message = f"{quote(named)} holds ${{{unknown[0]}}}, which stands for nothing"
        return [Problem(span, message, f"there are {', '.join(f'${{{word}}}' for word in _WORDS)}")]
    several = len(context.file.nodes) > 1
    if several and networking.fabric != "none" and found.data and not _WORD.search(text):
        message = f"{quote(named)} says the same on every node: pods of two nodes would get one address"
        return [Problem(span, message, 'write "${podCIDR}" where it names a subnet')]
    folders = tuple(os.path.join(here, each) for each in networking.cni_path or _FOLDERS)
    if any(":" in each for each in folders):
        return [Problem(context.span(("networking", "cniPath")), "a folder of plugins cannot have a colon in its name")]
    context.cni = CniNetwork(file, text, folders)
    return list(_contradictions(context))


def _read(file: str) -> str:
    # A pipe or a device would keep its reader waiting, or be acted on.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with open(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            msg = "it is no regular file"
            raise ValueError(msg)
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        msg = f"it is larger than {MAX_BYTES >> 20} MiB"
        raise ValueError(msg)
    return data.decode()


def _contradictions(context: Context) -> Iterator[Problem]:
    """What the file says of things that are the plugins'."""
    for i, node in enumerate(context.file.nodes):
        if node.host:
            message = f"node {quote(node.name)} is the machine itself, where plugins would leave what they make"
            yield Problem(
                context.span(("nodes", i, "host")), message, "give it a namespace, or leave `networking.cni` out"
            )
    for i, pod in enumerate(context.file.pods):
        for key, given in (("addresses", pod.addresses), ("routes", pod.routes)):
            if given:
                message = f"`{key}` of pod {quote(pod.name)} are the plugins' to choose: `networking.cni` is given"
                yield Problem(context.span(("pods", i, key), key=True), message, "say so in the CNI configuration list")


def config_of(cni: CniNetwork, node: PlacedNode, mtu: int, state: str) -> tuple[str, str]:
    """The network's name, and its list as JSON as it is on one node.

    ``state`` is the folder for the addresses that IPAM plugins hand out, where the list names none.
    """
    words: dict[str, str] = {"node": node.node.name, "mtu": str(mtu)}
    for gateway, cidr in reversed(list(zip(node.gateways, node.pod_cidrs, strict=True))):
        for suffix in ("", f"v{cidr.version}"):
            words |= {f"podCIDR{suffix}": str(cidr), f"podGateway{suffix}": str(gateway.ip)}
    value = _filled(json.loads(cni.text), words)
    for plugin in value.get("plugins", [value]):
        ipam = plugin.get("ipam") if isinstance(plugin, dict) else None
        if isinstance(ipam, dict) and ipam.get("type") in _KEEPS_FILES:
            ipam.setdefault("dataDir", state)
    return str(value["name"]), json.dumps(value)


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    """JSON with its words filled in; a text that is nothing but ``${mtu}`` becomes the number."""
    match value:
        case "${mtu}":
            return int(words["mtu"])
        case str():
            return _WORD.sub(lambda found: words.get(found[1], ""), value)
        case list():
            return [_filled(each, words) for each in value]
        case dict():
            return {key: _filled(each, words) for key, each in value.items()}
        case _:
            return value


def plugin_types(config: str) -> list[str]:
    """The executables that a list needs: its plugins, and those that hand out addresses for them."""
    value = json.loads(config)
    found: list[str] = []
    for plugin in value.get("plugins", [value]):
        found.append(str(plugin["type"]))
        ipam = plugin.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") and not str(plugin["type"]).startswith("podnet"):
            found.append(str(ipam["type"]))
    return list(dict.fromkeys(found))
