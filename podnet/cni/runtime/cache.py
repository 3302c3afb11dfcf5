"""The results cache: what was attached, with which configuration and result, in libcni's files.

One JSON file an attachment, ``DIR/results/NETWORK-CONTAINERID-IFNAME``, of kind ``cniCacheV1``, so that libcni, podman
and cnitool find what we attached, and we what they did.
"""

from __future__ import annotations

import base64
import binascii
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podnet.cni.spec.document import Document, decode, encode
from podnet.cni.spec.errors import CNIError
from podnet.errors import PodnetError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CacheError", "Cached", "Container", "attachments", "forget", "path_of", "recall", "remember"]

_KIND = "cniCacheV1"


class CacheError(PodnetError):
    """The results cache cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Container:
    """The container's side of an attachment, as the runtime describes it to the plugins.

    ``netns`` is a path, empty where the namespace is gone. ``args`` go into CNI_ARGS; of ``capability_args`` each
    plugin gets those that it declares.
    """

    id: str
    netns: str = ""
    ifname: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capability_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cached:
    """An attachment that was made; ``config`` is the list's file as it was, ``result`` the final result."""

    network: str
    container: Container
    config: bytes
    result: Mapping[str, Any] | None


def path_of(folder: str, network: str, container: Container) -> str:
    """The file of an attachment. Its names have been checked: none of them can lead elsewhere."""
    return os.path.join(folder, "results", f"{network}-{container.id}-{container.ifname}")


def remember(folder: str, network: str, container: Container, config: bytes, result: Mapping[str, Any]) -> None:
    """Write an attachment's file, in one step. Raises ``CacheError``."""
    value: dict[str, Any] = {
        "kind": _KIND,
        "containerId": container.id,
        "config": base64.b64encode(config).decode(),
        "ifName": container.ifname,
        "networkName": network,
    }
    if container.netns:
        value["netns"] = container.netns
    if container.args:
        value["cniArgs"] = [list(pair) for pair in container.args]
    if container.capability_args:
        value["capabilityArgs"] = dict(container.capability_args)
    value["result"] = dict(result)
    path = path_of(folder, network, container)
    # Not beside the results: whoever lists those would take it for one of them.
    unfinished = os.path.join(folder, f".{os.urandom(8).hex()}.unfinished")
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(encode(value))
            os.rename(unfinished, path)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)
            raise
    except OSError as error:
        msg = f"{path}: the result cannot be kept: {error.strerror}"
        raise CacheError(msg) from None


def recall(folder: str, network: str, container: Container) -> Cached | None:
    """What is kept of an attachment; ``None`` where there is nothing.

    A file of before ``cniCacheV1``, which is the bare result, has no configuration. Raises ``CacheError``.
    """
    path = path_of(folder, network, container)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        msg = f"{path}: the kept result cannot be read: {error.strerror}"
        raise CacheError(msg) from None
    try:
        document = decode(data, "kept result")
        if document.get("kind") != _KIND:
            return Cached(network, container, b"", document.raw)
        return _cached(document)
    except CNIError as error:
        raise CacheError(f"{path}: {error}") from None


def forget(folder: str, network: str, container: Container) -> None:
    """Remove an attachment's file, where there is one. Raises ``CacheError``."""
    path = path_of(folder, network, container)
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        msg = f"{path}: the kept result cannot be removed: {error.strerror}"
        raise CacheError(msg) from None


def attachments(folder: str, network: str = "", container_id: str = "") -> list[Cached]:
    """All attachments that are kept, of one network or container where that is given; others' files are skipped."""
    results = os.path.join(folder, "results")
    try:
        names = sorted(os.listdir(results))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        msg = f"{results}: the kept results cannot be read: {error.strerror}"
        raise CacheError(msg) from None
    found = []
    for name in names:
        try:
            with open(os.path.join(results, name), "rb") as file:
                document = decode(file.read(), "kept result")
            if document.get("kind") != _KIND:
                continue
            cached = _cached(document)
        except (OSError, CNIError):
            continue  # no cached attachment: removed meanwhile, or not written by any CNI library
        wanted = network in ("", cached.network) and container_id in ("", cached.container.id)
        if wanted and cached.network and cached.container.ifname:
            found.append(cached)
    return found


def _cached(document: Document) -> Cached:
    try:
        config = base64.b64decode(document.text("config"), validate=True)
    except (binascii.Error, ValueError):
        config = b""
    capability_args = document.object("capabilityArgs")
    result = document.object("result")
    pairs = [each for each in document.array("cniArgs") if isinstance(each, list) and len(each) == 2]
    container = Container(
        document.text("containerId"),
        document.text("netns") or _sandbox(result, document.text("ifName")),
        document.text("ifName"),
        tuple((str(key), str(value)) for key, value in pairs),
        capability_args.raw if capability_args else {},
    )
    return Cached(document.text("networkName"), container, config, result.raw if result else None)


def _sandbox(result: Document | None, ifname: str) -> str:
    """The namespace by the result: before it had a place of its own, libcni kept it nowhere else."""
    try:
        found = (each for each in result.objects("interfaces") if each.text("name") == ifname) if result else ()
        return next((each.text("sandbox") for each in found if each.text("sandbox")), "")
    except CNIError:
        return ""
