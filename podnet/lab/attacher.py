"""Pods attached by CNI plugins: what the lab is to its plugins is what a container runtime would be.

Each node has a folder of its own below the lab's: libcni's results cache, what plugins keep (where their configuration
names no other place), and the attachments that were begun. An attachment that was begun and not finished, because
somebody was killed, is deleted before it is tried again. The plugins run in the node's network namespace, and in a
mount namespace in which ``/var/lib/cni`` is the node's: what they keep there goes with the lab.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from podnet.errors import KernelError, PodnetError
from podnet.kernel import netns
from podnet.kernel.objects import Attached

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.cni.runtime.cache import Cached, Container
    from podnet.cni.runtime.chain import Runtime
    from podnet.cni.runtime.conflist import NetworkList

__all__ = ["Attacher", "data_dir"]

_BEGUN = "begun"
_STATE = "/var/lib/cni"  # where plugins keep what their configuration names no place for
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
            runtime, container = self._runtime(wanted.node, wanted.path), _container(wanted)
            self._in_node(wanted.node, lambda: chain.add(runtime, network, container))
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
            network = conflist.reread(config, found.network)
            self._in_node(found.node, lambda: chain.delete(runtime, network, container))
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
                    network = conflist.reread(config, node)
                    self._in_node(node, partial(chain.collect, self._runtime(node), network, valid))
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
        from podnet.cni.spec import versions

        found = self._attached(node, cached, self._path(node))
        if not netns.exists(found.netns):
            return found._replace(state="its namespace is gone")
        if not netns.exists(node):
            return found._replace(state=f"namespace {node} of its node is gone")
        runtime, container = self._runtime(node, found.path), _container(found)
        try:
            network = conflist.reread(cached.config, node)
            if versions.at_least(network.version, "0.4.0"):
                self._in_node(node, lambda: chain.check(runtime, network, container))
        except PodnetError as error:
            return found._replace(state=str(error))
        return found

    def _in_node(self, node: str, work: Callable[[], object]) -> None:
        """Do something in the node's network namespace, where plugins' own folders are the node's.

        In a process of its own, because it does not come back. Where the node is gone it is an empty namespace, in
        which DEL can at least give addresses back. Raises ``KernelError`` with the words of whatever was raised.
        """
        there, tell = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _work(node, {_STATE: f"{self._folder}/{node}/machine"}, work, tell, parent)
        os.close(tell)
        try:
            with open(there, "rb") as told:
                said = told.read().decode(errors="replace")
        finally:
            _, status = os.waitpid(child, 0)
        if said or status:
            raise KernelError(said or f"the process that called plugins in {node} was killed")


def _work(node: str, folders: dict[str, str], work: Callable[[], object], tell: int, parent: int) -> NoReturn:
    """The forked child; never returns into the parent's code."""
    from podnet.kernel.execute import keep_apart
    from podnet.kernel.maker import end_with

    said = ""
    try:
        end_with(parent)
        with netns.entered(node) if netns.exists(node) else netns.anonymous():
            keep_apart(folders)
            work()
    except PodnetError as error:
        said = str(error) or type(error).__name__
    except OSError as error:
        said = f"cannot call plugins in {node}: {error.strerror}"
    except BaseException as error:  # noqa: BLE001 - nothing of a forked child may go on in the parent's code
        said = f"{type(error).__name__}: {error}"
    finally:
        os.write(tell, said.encode(errors="replace"))
        os._exit(0)


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
