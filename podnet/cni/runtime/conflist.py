"""Network configuration lists on disk: read as libcni reads them (specification, section 1).

Keys of a list match exactly, keys of a plugin without regard to case: libcni does so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from podnet.cni.spec import versions
from podnet.cni.spec.document import Document, decode, encode
from podnet.cni.spec.environment import is_name
from podnet.cni.spec.errors import INVALID_CONFIG, CNIError
from podnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ConflistError", "NetworkList", "Plugin", "load", "parse", "reread"]

_LISTS = (".conflist",)
_SINGLES = (".conf", ".json")


class ConflistError(UsageError):
    """A network configuration is not there or wrong; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin of a list; ``raw`` is its part of the file as JSON."""

    type: str
    raw: Mapping[str, Any]
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkList:
    """A network: the plugins that are called one after the other. ``data`` is the file, for the cache."""

    name: str
    version: str
    plugins: tuple[Plugin, ...]
    data: bytes
    source: str
    disable_check: bool = False
    disable_gc: bool = False
    load_only_inlined: bool = False

    @property
    def capabilities(self) -> frozenset[str]:
        """What any plugin of the list declares."""
        return frozenset(each for plugin in self.plugins for each in plugin.capabilities)


def load(path: str, name: str = "") -> NetworkList:
    """The network in a file, or the one of that name in a directory, or the directory's first.

    The first is that of the file whose name sorts first, among ``.conf``, ``.conflist`` and ``.json``, as containerd
    chooses. By name, lists come before single configurations, as in libcni. Raises ``ConflistError``.
    """
    if not os.path.isdir(path):
        found = _read(path)
        if name and found.name != name:
            msg = f"{path}: it holds the network {found.name}, not {name}"
            raise ConflistError(msg)
        return found
    if not name:
        files = _files(path, _LISTS + _SINGLES)
        if not files:
            msg = f"{path}: no network configuration there (*.conflist, *.conf, *.json)"
            raise ConflistError(msg)
        return _read(files[0])
    files = _files(path, _LISTS) + _files(path, _SINGLES)
    others, broken = [], []
    for file in files:
        try:
            found = _read(file)
        except ConflistError as error:
            broken.append(str(error))  # perhaps another network's: it matters only when ours is not found
            continue
        if found.name == name:
            return found
        others.append(found.name)
    there = f"there are {', '.join(others)}" if others else "there is none"
    raise ConflistError("\n".join([f"{path}: no network {name}: {there}", *broken]))


def parse(data: bytes, source: str = "network configuration", *, single: bool = False) -> NetworkList:
    """A list, or with ``single`` one plugin's configuration made into a list of one.

    Plugins in other files are not looked for. Raises ``ConflistError``.
    """
    try:
        document = decode(data, "configuration")
        if single:
            return _single(document, data, source)
        return _list(document.raw, data, source)
    except CNIError as error:
        raise ConflistError(f"{source}: {error}") from None


def reread(data: bytes, source: str) -> NetworkList:
    """A configuration as it was kept, a list or a single plugin's. Raises ``ConflistError``, also without plugins."""
    return parse(data, source, single=not _is_list(data))


def _read(file: str) -> NetworkList:
    try:
        with open(file, "rb") as opened:
            data = opened.read()
    except OSError as error:
        raise ConflistError(f"{file}: it cannot be read: {error.strerror}") from None
    single = file.endswith(_SINGLES) and not _is_list(data)
    found = parse(data, file, single=single)
    if not (single or found.load_only_inlined):
        beside = _plugins_beside(file, found.name)
        if beside:
            found = _complete(found, beside)
    if not found.plugins:
        raise ConflistError(
            f"{file}: no plugins: neither the key plugins nor a file {os.path.join(found.name, '*.conf')} beside it"
        )
    return found


def _complete(found: NetworkList, beside: tuple[Plugin, ...]) -> NetworkList:
    # What goes into the cache must be enough for a DEL when the files have changed.
    plugins = found.plugins + beside
    whole = {**decode(found.data).raw, "plugins": [plugin.raw for plugin in plugins], "loadOnlyInlinedPlugins": True}
    return replace(found, plugins=plugins, data=encode(whole))


def _is_list(data: bytes) -> bool:
    # A list in a file named .conf or .json: containerd refuses it, podman and CRI-O read it.
    try:
        document = decode(data, "configuration")
    except CNIError:
        return False
    return isinstance(document.raw.get("plugins"), list) and not document.text("type")


def _plugins_beside(file: str, name: str) -> tuple[Plugin, ...]:
    # Files of plugins may lie in a folder with the network's name.
    plugins = []
    for each in _files(os.path.join(os.path.dirname(file), name), (".conf",)):
        try:
            with open(each, "rb") as opened:
                plugins.append(_plugin(decode(opened.read(), "configuration")))
        except OSError as error:
            raise ConflistError(f"{each}: it cannot be read: {error.strerror}") from None
        except CNIError as error:
            raise ConflistError(f"{each}: {error}") from None
    return tuple(plugins)


def _files(folder: str, endings: tuple[str, ...]) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConflistError(f"{folder}: it cannot be read: {error.strerror}") from None
    paths = [os.path.join(folder, name) for name in names if os.path.splitext(name)[1] in endings]
    return [path for path in paths if not os.path.isdir(path)]


def _list(raw: Mapping[str, Any], data: bytes, source: str) -> NetworkList:
    name = _name(raw.get("name"))
    only_inlined = _flag(raw, "loadOnlyInlinedPlugins")
    inlined = raw.get("plugins")
    if "plugins" not in raw and only_inlined:
        raise _wrong("loadOnlyInlinedPlugins is true, but there is no key plugins")
    if "plugins" in raw and not isinstance(inlined, list):
        raise _wrong("plugins must be an array")
    if inlined == []:
        raise _wrong("plugins is empty: a list needs at least one plugin")
    return NetworkList(
        name,
        _version(raw),
        tuple(_plugin(_object(each, f"plugins[{i}]")) for i, each in enumerate(inlined or ())),
        data,
        source,
        _flag(raw, "disableCheck"),
        _flag(raw, "disableGC"),
        only_inlined,
    )


def _single(document: Document, data: bytes, source: str) -> NetworkList:
    plugin = _plugin(document)
    name = _name(document.text("name"))
    version = document.text("cniVersion") or versions.OLDEST
    _known(version)
    # In the cache there is always a list: whoever reads it there need not know which kind of file it came from.
    wrapped = encode({"name": name, "cniVersion": version, "plugins": [document.raw]})
    return NetworkList(name, version, (plugin,), wrapped, source, load_only_inlined=True)


def _plugin(document: Document) -> Plugin:
    kind = document.text("type")
    if not kind:
        raise _wrong(f"{document.path('type')} is missing: it names the plugin's executable")
    if "/" in kind or "\\" in kind or "\0" in kind:
        raise _wrong(f"{document.path('type')} is {kind!r}, which is no file name")
    capabilities = document.object("capabilities")
    declared = capabilities.raw if capabilities else {}
    checked = Document(declared, document.path("capabilities"))
    return Plugin(kind, document.raw, tuple(key for key in declared if checked.flag(key)))


def _object(value: Any, where: str) -> Document:
    if not isinstance(value, dict):
        raise _wrong(f"{where} must be an object")
    return Document(value, where)


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise _wrong("name is missing: it must be the network's name")
    if not is_name(name):
        raise _wrong(f"name is {name!r}: it must begin with a letter or digit and hold only these and _ . -")
    return name


def _version(raw: Mapping[str, Any]) -> str:
    version = raw.get("cniVersion", "")
    if not isinstance(version, str):
        raise _wrong("cniVersion must be a string")
    offered = raw.get("cniVersions")
    if offered is None:
        return _known(version or versions.OLDEST)
    if not isinstance(offered, list) or not all(isinstance(each, str) for each in offered):
        raise _wrong("cniVersions must be an array of strings")
    # The highest that both sides know; newer ones than ours are there for newer runtimes.
    for each in offered:
        versions.parse(each)
    common = [each for each in [*offered, version] if each in versions.SUPPORTED]
    return max(common, key=versions.parse) if common else _known(version or versions.OLDEST)


def _known(version: str) -> str:
    versions.reconcile(version)
    return version


def _flag(raw: Mapping[str, Any], key: str) -> bool:
    value = raw.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _wrong(f"{key} must be true or false, as a boolean or a string, not {str(value)[:40]!r}")


def _wrong(message: str) -> CNIError:
    return CNIError(INVALID_CONFIG, message)
