"""Call all plugins of a network, one after the other, as libcni does (specification, section 3)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podnet.cni.runtime import cache, invoke
from podnet.cni.runtime.conflist import ConflistError, reread
from podnet.cni.spec import result, versions
from podnet.cni.spec.document import Document, decode, encode, fold
from podnet.cni.spec.environment import check_container_id, check_ifname
from podnet.cni.spec.errors import DECODING_FAILURE, INVALID_ENVIRONMENT, CNIError
from podnet.errors import PodnetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from podnet.cni.runtime.cache import Cached, Container
    from podnet.cni.runtime.conflist import NetworkList, Plugin

__all__ = [
    "ChainError",
    "CheckNotSupportedError",
    "CollectError",
    "PluginVersions",
    "Runtime",
    "add",
    "check",
    "collect",
    "delete",
    "plugin_config",
    "status",
    "supported_versions",
]


class ChainError(PodnetError):
    """A plugin of the chain failed; ``error`` is what it reported."""

    exit_code = 1

    def __init__(self, plugin: str, command: str, error: CNIError) -> None:
        super().__init__(f"plugin {plugin} failed ({command}): {error}")
        self.plugin = plugin
        self.command = command
        self.error = error


class CollectError(PodnetError):
    """A garbage collection went on to its end, with these errors."""

    exit_code = 1

    def __init__(self, errors: list[ChainError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = errors


class CheckNotSupportedError(UsageError):
    """The configuration is of a version that has no CHECK."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """How plugins are run: where they are, where results are kept, how many seconds each may take."""

    path: tuple[str, ...] = ("/opt/cni/bin", "/usr/lib/cni")
    cache_dir: str = "/var/lib/cni"
    timeout: float = 120.0
    stderr: Callable[[bytes], None] = invoke.to_stderr


@dataclass(frozen=True, slots=True)
class PluginVersions:
    """What a plugin says to VERSION, and whether the list's version is among it."""

    type: str
    path: str
    supported: tuple[str, ...]
    fits: bool


def add(runtime: Runtime, network: NetworkList, container: Container) -> dict[str, Any]:
    """Attach a container: ADD in order, each plugin with the result of the one before. The final result.

    It is kept in the cache. After a failure the caller decides whether to ``delete``. Raises ``ChainError``,
    ``PluginNotFoundError`` before anything was done, ``CacheError``.
    """
    _check_names(container)
    located = [(plugin, invoke.find(plugin.type, runtime.path)) for plugin in network.plugins]
    previous: dict[str, Any] | None = None
    for plugin, path in located:
        config = plugin_config(network, plugin, previous, container.capability_args)
        output = _call(runtime, plugin, path, "ADD", config, container)
        try:
            previous = _result(output, network.version)
        except CNIError as error:
            raise ChainError(plugin.type, "ADD", error) from None
    assert previous is not None  # noqa: S101 - a list has at least one plugin
    cache.remember(runtime.cache_dir, network.name, container, network.data, previous)
    return previous


def delete(runtime: Runtime, network: NetworkList, container: Container) -> None:
    """Detach a container: DEL in reverse order, with the final result of ADD as far as it is known.

    May be called any number of times, and for what was never attached. Raises ``ChainError``,
    ``PluginNotFoundError``, ``CacheError``.
    """
    _check_names(container)
    previous = None
    if versions.at_least(network.version, "0.4.0"):
        try:
            previous = _kept(runtime, network, container)
        except (CNIError, cache.CacheError):
            previous = None  # DEL is best effort: a plugin must do without
    for plugin in reversed(network.plugins):
        path = invoke.find(plugin.type, runtime.path)
        _call(runtime, plugin, path, "DEL", plugin_config(network, plugin, previous, container.capability_args),
              container)  # fmt: skip
    cache.forget(runtime.cache_dir, network.name, container)


def check(runtime: Runtime, network: NetworkList, container: Container) -> bool:
    """Whether the plugins still find what they made: CHECK in order, with the final result of ADD.

    ``False`` where the list says ``disableCheck``: then nobody was asked. Raises ``ChainError``,
    ``CheckNotSupportedError``, ``PluginNotFoundError``, ``CacheError``.
    """
    if not versions.at_least(network.version, "0.4.0"):
        msg = f"{network.source}: configuration version {network.version} has no CHECK: 0.4.0 is the first"
        raise CheckNotSupportedError(msg)
    if network.disable_check:
        return False
    _check_names(container)
    try:
        previous = _kept(runtime, network, container)
    except CNIError as error:
        path = cache.path_of(runtime.cache_dir, network.name, container)
        raise cache.CacheError(f"{path}: the kept result cannot be used: {error}") from None
    for plugin in network.plugins:
        path = invoke.find(plugin.type, runtime.path)
        _call(runtime, plugin, path, "CHECK", plugin_config(network, plugin, previous, container.capability_args),
              container)  # fmt: skip
    return True


def collect(runtime: Runtime, network: NetworkList, valid: Iterable[tuple[str, str]]) -> list[Cached]:
    """Remove what is no longer valid of a network; ``valid`` are pairs of container ID and interface name.

    First DEL of every kept attachment that is not valid, each with the configuration that it was made with; then
    GC, where the list's version has it. Nothing at all where the list says ``disableGC``. Goes on after errors.
    The attachments that were deleted. Raises ``CollectError`` at the end, and ``CacheError``.
    """
    if network.disable_gc:
        return []
    keep = set(valid)
    deleted, errors = [], []
    for cached in cache.attachments(runtime.cache_dir, network.name):
        if (cached.container.id, cached.container.ifname) in keep:
            continue
        try:
            delete(runtime, _as_made(cached, network), cached.container)
        except (ChainError, CNIError) as error:
            errors.append(_chain_error(error, f"for {cached.container.id} {cached.container.ifname}", "DEL"))
        else:
            deleted.append(cached)
    if versions.at_least(network.version, "1.1.0"):
        listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in sorted(keep)]
        for plugin in network.plugins:
            config = plugin_config(network, plugin, None, {})
            # The second is what 1.1.0 first said, and what some plugins still read.
            config |= {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
            try:
                _call(runtime, plugin, invoke.find(plugin.type, runtime.path), "GC", config, None)
            except (ChainError, CNIError) as error:
                errors.append(_chain_error(error, plugin.type, "GC"))
    if errors:
        raise CollectError(errors)
    return deleted


def status(runtime: Runtime, network: NetworkList) -> bool:
    """Whether every plugin says that it can serve an ADD; ``False`` where the list's version has no STATUS.

    Raises ``ChainError`` with the first that cannot, ``PluginNotFoundError``.
    """
    if not versions.at_least(network.version, "1.1.0"):
        return False
    for plugin in network.plugins:
        path = invoke.find(plugin.type, runtime.path)
        _call(runtime, plugin, path, "STATUS", plugin_config(network, plugin, None, {}), None)
    return True


def supported_versions(runtime: Runtime, network: NetworkList) -> list[PluginVersions]:
    """What each plugin of a list says to VERSION. Raises ``ChainError``, ``PluginNotFoundError``."""
    found = []
    for plugin in network.plugins:
        path = invoke.find(plugin.type, runtime.path)
        try:
            supported = _versions(runtime, path)
        except CNIError as error:
            raise ChainError(plugin.type, "VERSION", error) from None
        found.append(PluginVersions(plugin.type, path, supported, network.version in supported))
    return found


def plugin_config(
    network: NetworkList, plugin: Plugin, previous: Mapping[str, Any] | None, capability_args: Mapping[str, Any]
) -> dict[str, Any]:
    """What a plugin gets on standard input: its part of the list, and what the runtime adds to it.

    ``runtimeConfig`` holds what is both declared by the plugin and offered by the runtime.
    """
    added: dict[str, Any] = {"cniVersion": network.version, "name": network.name}
    if previous is not None:
        added["prevResult"] = dict(previous)
    offered = {key: capability_args[key] for key in plugin.capabilities if key in capability_args}
    if offered:
        added["runtimeConfig"] = offered
    # A key of the file in other letters would stand beside ours, and win or lose by its place.
    ours = {fold(key) for key in added}
    return {key: value for key, value in plugin.raw.items() if fold(key) not in ours} | added


def _call(
    runtime: Runtime, plugin: Plugin, path: str, command: str, config: Mapping[str, Any], container: Container | None
) -> bytes:
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container.id if container else "",
        "CNI_NETNS": container.netns if container else "",
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in container.args) if container else "",
        "CNI_IFNAME": container.ifname if container else "",
        "CNI_PATH": ":".join(runtime.path),
    }
    environ = os.environ | variables
    try:
        return invoke.run(path, encode(config), environ, timeout=runtime.timeout, stderr=runtime.stderr)
    except CNIError as error:
        raise ChainError(plugin.type, command, error) from None


def _result(output: bytes, version: str) -> dict[str, Any]:
    """A plugin's result in the version of the list, also when it came in another."""
    document = decode(output, "result")
    found = result.parse(document, version)
    if not found.ips and not versions.at_least(version, "0.3.0"):
        # Results so old have an address; a plugin that has none to give may stand in such a list all the same.
        return {**document.raw, "cniVersion": version}
    return result.to_json(found, version)


def _kept(runtime: Runtime, network: NetworkList, container: Container) -> dict[str, Any] | None:
    cached = cache.recall(runtime.cache_dir, network.name, container)
    if cached is None or cached.result is None:
        return None
    return result.to_json(result.parse(Document(cached.result), versions.OLDEST), network.version)


def _as_made(cached: Cached, network: NetworkList) -> NetworkList:
    """The list that an attachment was made with; today's where that is lost."""
    try:
        made = reread(cached.config, "kept configuration")
    except ConflistError:
        return network
    return made if made.name == network.name else network


def _versions(runtime: Runtime, path: str) -> tuple[str, ...]:
    # Plugins of the first days ask for these variables whatever the command.
    variables = {"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy"}
    data = encode({"cniVersion": versions.NEWEST})
    try:
        output = invoke.run(path, data, os.environ | variables, timeout=runtime.timeout, stderr=runtime.stderr)
    except CNIError as error:
        if error.msg == "unknown CNI_COMMAND: VERSION":
            return (versions.OLDEST,)
        raise
    document = decode(output, "version info")
    version = document.text("cniVersion")
    supported = document.texts("supportedVersions")
    if not version:
        raise CNIError(DECODING_FAILURE, "decoding version info: missing field cniVersion")
    if not supported and version != "0.2.0":
        raise CNIError(DECODING_FAILURE, "decoding version info: missing field supportedVersions")
    return supported or ("0.1.0", "0.2.0")


def _check_names(container: Container) -> None:
    if not container.id:
        raise CNIError(INVALID_ENVIRONMENT, "missing containerID")
    check_container_id(container.id)
    check_ifname(container.ifname)


def _chain_error(error: PodnetError, plugin: str, command: str) -> ChainError:
    if isinstance(error, ChainError):
        return error
    assert isinstance(error, CNIError)  # noqa: S101 - nothing else is caught
    return ChainError(plugin, command, error)
