"""Port mappings: the capability ``portMappings``, judged by connections, whatever the plugin's rules look like."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from podnet.conform.case import told
from podnet.conform.model import CHAINED, INTERFACE, not_applicable
from podnet.conform.sections.table import Table
from podnet.kernel import netns

if TYPE_CHECKING:
    from podnet.conform.case import Case
    from podnet.conform.model import Kind
    from podnet.conform.subject import Attachment

__all__ = ["TABLE"]

TABLE = Table("port mappings")
row = TABLE.row

_KINDS: tuple[Kind, ...] = (*INTERFACE, *CHAINED)
_PATIENCE = 3.0  # seconds that a connection may take
_CONVENTION = "CONVENTIONS, capability portMappings"


def _mapped(case: Case) -> tuple[Attachment, dict[str, Any]]:
    """What would be attached, and the mapping that the configuration asks for."""
    at = case.attachment()
    mappings = at.runtime_config.get("portMappings") or []
    if not mappings:
        not_applicable("the configuration has no portMappings")
    return at, mappings[0]


def _leads_to(at: Attachment, mapping: dict[str, Any]) -> bool:
    """Whether a connection to the host port, at the gateway's address, arrives at the container's port."""
    with netns.open_socket(at.sandbox.namespace, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", int(mapping["containerPort"])))
        server.listen()
        server.setblocking(False)
        try:
            address = (at.network.values["gateway"], int(mapping["hostPort"]))
            client = socket.create_connection(address, _PATIENCE)
        except OSError:
            return False
        with client:
            try:
                connection, _ = server.accept()
            except BlockingIOError:
                return False
            connection.close()
            return True


@row("R1a", "library", "A connection to the host port arrives in the container", _CONVENTION, kinds=_KINDS)
def arrives(case: Case) -> str:
    at, mapping = _mapped(case)
    case.add(at)
    case.require(_leads_to(at, mapping), f"port {mapping['hostPort']} of the host does not lead to the container")
    return f"{mapping['hostPort']} to {mapping['containerPort']}"


@row("R1b", "library", "Keys may be written HostPort, ContainerPort", "containerd sends them so", kinds=_KINDS)
def capitalised(case: Case) -> None:
    at, mapping = _mapped(case)
    written = [{key[0].upper() + key[1:]: value for key, value in mapping.items()}]
    at.runtime_config = {**at.runtime_config, "portMappings": written}
    case.add(at)
    case.require(_leads_to(at, mapping), f"port {mapping['hostPort']} of the host does not lead to the container")


@row("R1c", "SHOULD", "After DEL the host port leads nowhere", "SPEC section 2, DEL", kinds=_KINDS)
def closed(case: Case) -> None:
    at, mapping = _mapped(case)
    case.add(at)
    case.succeeded(case.run("DEL", at))
    other = case.add()
    taken = {**mapping, "containerPort": (other.runtime_config["portMappings"][0])["containerPort"]}
    case.require(not _leads_to(at, mapping), f"port {mapping['hostPort']} still leads to the container")
    case.require(not _leads_to(other, taken), f"port {mapping['hostPort']} leads to another container")


@row("R2a", "practice", "ADD with a host port that another container has fails", "", kinds=_KINDS)
def taken_port(case: Case) -> str:
    first, mapping = _mapped(case)
    case.add(first)
    second = case.attachment()
    second.runtime_config = first.runtime_config
    exchange = case.run("ADD", second, title="ADD of another container with the same host port")
    case.refused(exchange, f"host port {mapping['hostPort']} leads to another container already")
    return told(exchange)


@row("R2b", "practice", "A host port stays with the container that had it first", "", kinds=_KINDS)
def kept_port(case: Case) -> None:
    first, mapping = _mapped(case)
    case.add(first)
    second = case.attachment()
    second.runtime_config = first.runtime_config
    case.run("ADD", second, title="ADD of another container with the same host port")
    case.require(_leads_to(first, mapping), f"port {mapping['hostPort']} leads to the container that came second")


@row("R2c", "practice", "A host port is free again after DEL", "", kinds=_KINDS)
def free_again(case: Case) -> None:
    first, mapping = _mapped(case)
    case.add(first)
    case.succeeded(case.run("DEL", first))
    second = case.attachment()
    second.runtime_config = first.runtime_config
    case.succeeded(case.run("ADD", second), "ADD with a host port that was given back")
    case.require(
        _leads_to(second, mapping), f"port {mapping['hostPort']} does not lead to the container that has it now"
    )
