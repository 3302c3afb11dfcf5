"""Pods attached by CNI plugins: what the lab is to its plugins is what a container runtime would be.

Each node has a folder of its own below the lab's: libcni's results cache, what plugins keep (where their configuration
names no other place), and the attachments that were begun. An attachment that was begun and not finished, because
somebody was killed, is deleted before it is tried again. The plugins run in the node's network namespace.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from podnet.errors import KernelError, PodnetError
from podnet.kernel import netns
from podnet.kernel.objects import Attached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podnet.cni.runtime.cache import Cached, Container
    from podnet.cni.runtime.chain import Runtime
    from podnet.cni.runtime.conflist import NetworkList

__all__ = ["Attacher", "data_dir"]

_BEGUN = "begun"
_SECONDS = 60.0  # that one plugin may take


def data_dir(lab: str, node: str) -> str:
    """Where the plugins of a node keep their state; ``lab`` is the lab's folder."""
    return f"{lab}/cni/{node}/state"


class Attacher:
    """The attachments of one lab, whose folder this is."""

    def __init__(self, lab: str) -> None:
        self._folder = f"{lab}/cni"

    # -- what kernel.interface.Attacher asks for ----------------------------------------------------------

    def observe(self) -> list[Attached]:
        """All attachments; ``state`` is what CHECK says, or why nobody can be asked."""
        found = [self._checked(node, cached) for node in self._nodes() for cached in self._cached(node)]
        known = {each.key for each in found}
        found += [
            each._replace(state="was begun, and not finished")
            for node in self._nodes()
            for each in self._begun(node)
            if each.key not in known
        ]
        return found

    def add(self, wanted: Attached) -> None:
        """ADD, and DEL where it fails."""
        from podnet.cni.runtime import chain, conflist

        folder = f"{self._folder}/{wanted.node}"
        os.makedirs(f"{folder}/{_BEGUN}", mode=0o700, exist_ok=True)
        if self._is_begun(wanted):
            self.delete(wanted)
        _write(f"{folder}/path", wanted.path)
        _write(self._begun_file(wanted), f"{wanted.ifname}\n{wanted.config}")
        network = conflist.reread(wanted.config.encode(), wanted.network)
        try:
            with self._inside(wanted.node):
                chain.add(self._runtime(wanted.node, wanted.path), network, _container(wanted))
        except PodnetError as error:
            with suppress(PodnetError):
                self.delete(wanted)
            raise _refused(error) from error
        os.unlink(self._begun_file(wanted))

    def delete(self, found: Attached) -> None:
        """DEL, with the configuration that ADD had."""
        from podnet.cni.runtime import cache, chain, conflist

        runtime = self._runtime(found.node, found.path)
        container = _container(found)
        kept = cache.recall(runtime.cache_dir, found.network, container)
        config = kept.config if kept is not None and kept.config else found.config.encode()
        try:
            with self._inside(found.node):
                chain.delete(runtime, conflist.reread(config, found.network), container)
        except PodnetError as error:
            # What never was whole may be of a configuration that no DEL can read. If it is in the way, ADD says so.
            if kept is not None:
                raise _refused(error) from error
        with suppress(FileNotFoundError):
            os.unlink(self._begun_file(found))

    # -- what else a lab wants to know --------------------------------------------------------------------

    def results(self) -> dict[str, dict[str, Any]]:
        """The result of each attachment by its pod's namespace, as the last plugin gave it."""
        return {
            cached.container.id: dict(cached.result)
            for node in self._nodes()
            for cached in self._cached(node)
            if cached.result is not None
        }

    def collect(self) -> list[str]:
        """GC on every node: what is not attached goes, whatever a crash has left. Returns complaints."""
        from podnet.cni.runtime import chain, conflist

        complaints = []
        for node in self._nodes():
            cached = self._cached(node)
            valid = [(each.container.id, each.container.ifname) for each in cached]
            for config in {each.config for each in cached if each.config}:
                try:
                    with self._inside(node):
                        chain.collect(self._runtime(node), conflist.reread(config, node), valid)
                except PodnetError as error:
                    complaints.append(f"{node}: {error}")
        return complaints

    def detach_all(self) -> list[str]:
        """DEL for whatever was attached or begun, as far as possible. Returns complaints."""
        complaints = []
        for node in self._nodes():
            path = self._path(node)
            attached = [self._attached(node, cached, path) for cached in self._cached(node)]
            known = {each.key for each in attached}
            for each in reversed(attached + [one for one in self._begun(node) if one.key not in known]):
                try:
                    self.delete(each)
                except KernelError as error:
                    complaints.append(f"{each}: {error}")
        return complaints

    # -- files --------------------------------------------------------------------------------------------

    def _nodes(self) -> list[str]:
        try:
            return sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []

    def _path(self, node: str) -> str:
        with suppress(FileNotFoundError), open(f"{self._folder}/{node}/path", encoding="utf-8") as file:
            return file.read()
        return ""

    def _runtime(self, node: str, path: str = "") -> Runtime:
        from podnet.cni.runtime.chain import Runtime

        folders = tuple((path or self._path(node)).split(":"))
        return Runtime(folders, f"{self._folder}/{node}", _SECONDS, stderr=lambda _: None)

    def _cached(self, node: str) -> list[Cached]:
        folder = f"{self._folder}/{node}"
        if not os.path.isdir(f"{folder}/results"):
            return []
        from podnet.cni.runtime import cache

        return cache.attachments(folder)

    def _begun_file(self, each: Attached) -> str:
        return f"{self._folder}/{each.node}/{_BEGUN}/{each.netns}"

    def _is_begun(self, each: Attached) -> bool:
        return os.path.exists(self._begun_file(each))

    def _begun(self, node: str) -> list[Attached]:
        folder = f"{self._folder}/{node}/{_BEGUN}"
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            if name.endswith(".new"):
                continue
            with open(f"{folder}/{name}", encoding="utf-8") as file:
                ifname, _, config = file.read().partition("\n")
            found.append(Attached(name, ifname, node, _name_in(config), config, self._path(node)))
        return found

    def _attached(self, node: str, cached: Cached, path: str) -> Attached:
        config = cached.config.decode(errors="replace")
        return Attached(cached.container.id, cached.container.ifname, node, cached.network, config, path)

    def _checked(self, node: str, cached: Cached) -> Attached:
        from podnet.cni.runtime import chain, conflist

        found = self._attached(node, cached, self._path(node))
        if not netns.exists(found.netns):
            return found._replace(state="its namespace is gone")
        if not netns.exists(node):
            return found._replace(state=f"namespace {node} of its node is gone")
        try:
            with self._inside(node):
                chain.check(self._runtime(node, found.path), conflist.reread(cached.config, node), _container(found))
        except chain.CheckNotSupportedError:
            pass
        except PodnetError as error:
            return found._replace(state=str(error))
        return found

    @contextmanager
    def _inside(self, node: str) -> Iterator[None]:
        """The node's namespace; without it an empty one, in which DEL can at least give addresses back."""
        with netns.entered(node) if netns.exists(node) else netns.anonymous():
            yield


def _container(each: Attached) -> Container:
    from podnet.cni.runtime.cache import Container

    path = netns.path_of(each.netns) if netns.exists(each.netns) else ""
    # As a kubelet's runtime says it.
    pod = each.netns.partition(".")[2]
    args = (("IgnoreUnknown", "1"), ("K8S_POD_NAMESPACE", "default"), ("K8S_POD_NAME", pod))
    return Container(each.netns, path, each.ifname, args)


def _name_in(config: str) -> str:
    from podnet.cni.runtime import conflist

    network: NetworkList = conflist.reread(config.encode(), "the attachment that was begun")
    return network.name


def _write(path: str, text: str) -> None:
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def _refused(error: PodnetError) -> KernelError:
    return KernelError(str(error))
