"""podnet cni: the runtime's side, for any plugins."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from podnet.cli.cni_install import install, uninstall
from podnet.cli.cni_log import log
from podnet.cli.cni_serve import serve
from podnet.cli.output import output_option, print_json, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podnet.cni.runtime.cache import Cached, Container
    from podnet.cni.runtime.chain import Runtime
    from podnet.cni.runtime.conflist import NetworkList

__all__ = ["command"]

_CONF = "/etc/cni/net.d"


@click.group(short_help="Call CNI plugins as a container runtime does.")
def command() -> None:
    """Call the plugins of a CNI network as a container runtime does: the whole chain, with libcni's results cache.

    \b
      podnet cni add --netns web              attach the namespace /run/netns/web
      podnet cni check --netns web            is all still as it was made?
      podnet cni del --netns web              detach it

    Exit codes: 0 done; 1 a plugin returned an error, which is printed; 2 usage or configuration error.
    """


def _network_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What every subcommand takes."""
    for option in reversed((
        click.option("--conf", metavar="FILE|DIR", help=f"The network's configuration. [default: {_CONF}]"),
        click.option("--network", metavar="NAME", help="The network, where the directory holds several."),
        click.option("--path", metavar="DIR:DIR", default="/opt/cni/bin:/usr/lib/cni", show_default=True,
                     help="Where the plugins are."),
        click.option("--cache-dir", metavar="DIR", default="/var/lib/cni", show_default=True,
                     help="Where results are kept."),
        click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True), default=120.0,
                     show_default=True, help="How long one plugin may take."),
        output_option,
    )):  # fmt: skip
        function = option(function)
    return function


def _container_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What describes an attachment."""
    for option in reversed((
        click.option("--netns", metavar="NAME|PATH", default="", help="The container's network namespace."),
        click.option("--ifname", metavar="NAME", default="eth0", show_default=True, help="The interface in it."),
        click.option("--container-id", metavar="ID", help="[default: made from the namespace's path]"),
        click.option("--args", metavar="K=V;K2=V2", default="", help="CNI_ARGS."),
        click.option("--capability-args", metavar="JSON", default="",
                     help="""Such as {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}."""),
    )):  # fmt: skip
        function = option(function)
    return function


@command.command("add")
@_container_options
@_network_options
@click.option("--keep", is_flag=True, help="Leave what a failed ADD has made, to look at it.")
def add(output: str, keep: bool, **options: Any) -> None:
    """Attach a namespace to a network, and print the result."""
    from podnet.cni.runtime import cache, chain
    from podnet.errors import UsageError

    runtime, network = _runtime(options), _network(options)
    container = _container(options, needs_netns=True)
    if cache.recall(runtime.cache_dir, network.name, container):
        msg = (
            f"container {container.id} has {container.ifname} in network {network.name} already: "
            "'podnet cni del' removes it, --ifname or --container-id add another"
        )
        raise UsageError(msg)
    with _errors_printed(network.version):
        try:
            result = chain.add(runtime, network, container)
        except chain.ChainError as error:
            if not keep:
                _clean_up(runtime, network, container, error)
            raise
    if output == "json":
        print_json(result)
    else:
        click.echo("\n".join(_result_lines(result)))


@command.command("del")
@_container_options
@_network_options
def delete(output: str, **options: Any) -> None:
    """Detach a namespace. What it was attached with is known from the cache; --conf says otherwise."""
    from podnet.cni.runtime import chain

    runtime = _runtime(options)
    network, container = _attached(options, runtime)
    with _errors_printed(network.version):
        chain.delete(runtime, network, container)
    _done(output, network, f"{container.id} {container.ifname}: detached", container)


@command.command("check")
@_container_options
@_network_options
def check(output: str, **options: Any) -> None:
    """Ask the plugins whether an attachment is still as they made it."""
    from podnet.cni.runtime import chain

    runtime = _runtime(options)
    network, container = _attached(options, runtime)
    with _errors_printed(network.version):
        asked = chain.check(runtime, network, container)
    found = "as it was made" if asked else "not checked: the configuration says disableCheck"
    _done(output, network, f"{container.id} {container.ifname}: {found}", container, checked=asked)


@command.command("gc")
@_network_options
@click.option("--valid", metavar="ID/IFNAME", multiple=True, help="An attachment to keep; may be given many times.")
@click.option("--all", "everything", is_flag=True, help="Keep none.")
def gc(output: str, valid: tuple[str, ...], everything: bool, **options: Any) -> None:
    """Remove what is left of attachments that are no longer valid.

    Without --valid and --all, those attachments in the cache are valid whose network namespace is still there, or is
    not known.
    """
    from podnet.cni.runtime import chain

    if valid and everything:
        msg = "--valid and --all contradict each other"
        raise click.UsageError(msg)
    runtime, network = _runtime(options), _network(options)
    keep = set() if everything else _valid(runtime, network, valid)
    with _errors_printed(network.version):
        deleted = chain.collect(runtime, network, keep)
    names = [f"{each.container.id}/{each.container.ifname}" for each in deleted]
    if network.disable_gc:
        _done(output, network, "not collected: the configuration says disableGC", collected=False)
    else:
        _done(output, network, f"collected; detached: {', '.join(names) or 'none'}", collected=True, detached=names)


@command.command("status")
@_network_options
def status(output: str, **options: Any) -> None:
    """Ask the plugins whether they can attach containers."""
    from podnet.cni.runtime import chain

    runtime, network = _runtime(options), _network(options)
    with _errors_printed(network.version):
        asked = chain.status(runtime, network)
    _done(output, network, "ready" if asked else f"version {network.version} has no STATUS", asked=asked)


@command.command("version", short_help="Show which versions each plugin supports.")
@_network_options
def version(output: str, **options: Any) -> None:
    """Show which versions of the specification each plugin of a network supports."""
    from dataclasses import asdict

    from podnet.cni.runtime import chain

    runtime, network = _runtime(options), _network(options)
    with _errors_printed(network.version):
        found = chain.supported_versions(runtime, network)
    if output == "json":
        plugins = [asdict(each) for each in found]
        print_json({"network": network.name, "cniVersion": network.version, "plugins": plugins})
    else:
        rows = [[each.type, "yes" if each.fits else "no", " ".join(each.supported), each.path] for each in found]
        click.echo(table(["PLUGIN", f"HAS {network.version}", "SUPPORTS", "PATH"], rows))
    if not all(each.fits for each in found):
        sys.exit(1)


def _runtime(options: dict[str, Any]) -> Runtime:
    from podnet.cni.runtime.chain import Runtime

    path = tuple(each for each in options["path"].split(":") if each)
    return Runtime(path, options["cache_dir"], options["timeout"])


def _network(options: dict[str, Any]) -> NetworkList:
    from podnet.cni.runtime.conflist import load

    return load(options["conf"] or _CONF, options["network"] or "")


def _container(options: dict[str, Any], *, needs_netns: bool) -> Container:
    import os

    from podnet.cni.runtime.cache import Container
    from podnet.cni.spec.environment import check_container_id, check_ifname
    from podnet.cni.spec.errors import CNIError
    from podnet.errors import UsageError

    netns = options["netns"]
    if netns and "/" not in netns:
        netns = f"/run/netns/{netns}"
    if needs_netns and not os.path.exists(netns):
        msg = f"there is no network namespace {netns}" if netns else "--netns is missing"
        raise UsageError(f"{msg}: 'ip netns' lists and makes them")
    container_id = options["container_id"] or _id_of(netns)
    try:
        check_container_id(container_id)
        check_ifname(options["ifname"])
    except CNIError as error:
        raise UsageError(str(error)) from None
    return Container(
        container_id, netns, options["ifname"], _pairs(options["args"]), _object(options["capability_args"])
    )


def _id_of(netns: str) -> str:
    from hashlib import sha1

    from podnet.errors import UsageError

    if not netns:
        msg = "--netns or --container-id is missing: they say which container"
        raise UsageError(msg)
    return f"podnet-{sha1(netns.encode(), usedforsecurity=False).hexdigest()[:20]}"


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    from podnet.errors import UsageError

    pairs = []
    for pair in text.split(";") if text else ():
        key, equals, value = pair.partition("=")
        if not (key and equals) or "=" in value:
            msg = f"--args: '{pair}' is no pair: write K=V;K2=V2"
            raise UsageError(msg)
        pairs.append((key, value))
    return tuple(pairs)


def _object(text: str) -> dict[str, Any]:
    from podnet.cni.spec.document import decode
    from podnet.cni.spec.errors import CNIError
    from podnet.errors import UsageError

    try:
        return dict(decode(text.encode("utf-8", "replace"), "--capability-args").raw) if text else {}
    except CNIError as error:
        raise UsageError(str(error)) from None


def _attached(options: dict[str, Any], runtime: Runtime) -> tuple[NetworkList, Container]:
    """The network and container of an attachment: what the cache knows, where the user does not say otherwise."""
    from dataclasses import replace

    from podnet.cni.runtime import cache
    from podnet.cni.runtime.conflist import ConflistError, reread

    container = _container(options, needs_netns=False)
    kept = [each for each in cache.attachments(runtime.cache_dir, options["network"] or "", container.id)
            if each.container.ifname == container.ifname]  # fmt: skip
    if options["conf"] or len(kept) != 1:
        network = _network(options)
        kept = [each for each in kept if each.network == network.name]
    else:
        try:
            network = reread(kept[0].config, "kept configuration")
        except ConflistError:
            network = _network(options)
    for each in kept:
        container = replace(
            container,
            netns=container.netns or _netns_of(each),
            args=container.args or each.container.args,
            capability_args=container.capability_args or each.container.capability_args,
        )
    return network, container


def _netns_of(cached: Cached) -> str:
    import os

    return cached.container.netns if os.path.exists(cached.container.netns) else ""


def _valid(runtime: Runtime, network: NetworkList, given: tuple[str, ...]) -> set[tuple[str, str]]:
    import os

    from podnet.cni.runtime import cache
    from podnet.errors import UsageError

    if not given:
        kept = [each.container for each in cache.attachments(runtime.cache_dir, network.name)]
        # Of an attachment whose namespace nobody has written down, nobody knows that it is gone.
        return {(each.id, each.ifname) for each in kept if not each.netns or os.path.exists(each.netns)}
    pairs = set()
    for each in given:
        container_id, slash, ifname = each.partition("/")
        if not (container_id and slash and ifname):
            msg = f"--valid: '{each}' names no attachment: write CONTAINERID/IFNAME"
            raise UsageError(msg)
        pairs.add((container_id, ifname))
    return pairs


@contextmanager
def _errors_printed(version: str) -> Iterator[None]:
    """A plugin's error goes to standard output as the error object, and to standard error for humans."""
    from podnet.cni.runtime.chain import ChainError, CollectError
    from podnet.cni.spec.errors import CNIError
    from podnet.errors import UsageError

    try:
        yield
    except ChainError as error:
        print_json(error.error.to_json(version))
        click.echo(f"podnet: {error}", err=True)
        sys.exit(error.exit_code)
    except CollectError as error:
        first = error.errors[0].error
        print_json(CNIError(first.code, str(error)).to_json(version))
        click.echo(f"podnet: {error}", err=True)
        sys.exit(error.exit_code)
    except CNIError as error:  # found before any plugin was called: a name, or no such plugin
        raise UsageError(str(error)) from None


def _clean_up(runtime: Runtime, network: NetworkList, container: Container, failed: Exception) -> None:
    """After a failed ADD a runtime must DEL, but not when the plugin says that there is nothing to remove."""
    from podnet.cni.runtime import chain
    from podnet.cni.spec.errors import UNKNOWN_CONTAINER, CNIError
    from podnet.errors import PodnetError

    if isinstance(failed, chain.ChainError) and failed.error.code == UNKNOWN_CONTAINER:
        return
    try:
        chain.delete(runtime, network, container)
    except (PodnetError, CNIError) as error:
        click.echo(f"podnet: after the failed ADD: {error}", err=True)


def _result_lines(result: dict[str, Any]) -> list[str]:
    interfaces = result.get("interfaces", [])
    old = [result[key] | {"address": result[key]["ip"]} for key in ("ip4", "ip6") if key in result]
    lines = []
    for ip in result.get("ips", []) + old:
        index = ip.get("interface")
        name = interfaces[index]["name"] if index is not None and index < len(interfaces) else "-"
        lines.append([name, ip["address"], ip.get("gateway", "-")])
    rows = [[each["name"], each.get("mac", "-"), each.get("sandbox", "host")] for each in interfaces]
    text = table(["INTERFACE", "MAC", "IN"], rows).splitlines() if rows else []
    return (
        text
        + ([""] if text and lines else [])
        + (table(["ON", "ADDRESS", "GATEWAY"], lines).splitlines() if lines else [])
    )


def _done(output: str, network: NetworkList, text: str, container: Container | None = None, **facts: Any) -> None:
    if output == "text":
        click.echo(f"{network.name}: {text}")
        return
    about = {"containerID": container.id, "ifname": container.ifname} if container else {}
    print_json({"network": network.name, "cniVersion": network.version, **about, **facts, "ok": True})


for each in (install, log, serve, uninstall):
    command.add_command(each)
