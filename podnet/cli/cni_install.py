"""``podnet cni install`` and ``podnet cni uninstall``: the plugin where container runtimes look for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from podnet.cli.output import output_option, print_json

if TYPE_CHECKING:
    from podnet.cni.install.place import Content

__all__ = ["install", "uninstall"]

_BIN, _CONF, _SYSTEMD = "/opt/cni/bin", "/etc/cni/net.d", "/etc/systemd/system"
_bin_option = click.option("--bin-dir", metavar="DIR", default=_BIN, show_default=True, help="Where plugins are.")


@click.command(short_help="Install the plugin and a network.")
@_bin_option
@click.option("--conf-dir", metavar="DIR", default=_CONF, show_default=True, help="Where networks are.")
@click.option(
    "--systemd-dir",
    metavar="DIR",
    help=f"Where the server's units go; '' for none. [default: {_SYSTEMD}, where systemd runs]",
)
@click.option(
    "--conflist",
    "given",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The network. [default: a bridge, see --name and --subnet]",
)
@click.option("--name", metavar="NAME", default="podnet", show_default=True, help="The network's name.")
@click.option(
    "--subnet",
    "subnets",
    metavar="CIDR",
    multiple=True,
    default=("10.88.0.0/16",),
    show_default=True,
    help="Its addresses; twice for both families.",
)
@click.option("--no-conflist", is_flag=True, help="Executables only.")
@click.option("--no-python", is_flag=True, help="For nodes without Python: only what works with a server.")
@output_option
def install(
    bin_dir: str,
    conf_dir: str,
    systemd_dir: str | None,
    given: str | None,
    name: str,
    subnets: tuple[str, ...],
    no_conflist: bool,
    no_python: bool,
    output: str,
) -> None:
    """Place the plugin, and the network's configuration last, so that a runtime never finds a half of it.

    Every file is written beside its place and renamed into it, so this is also the upgrade, while calls run. A file of
    a network that was edited since is kept. Files that others have placed are never overwritten.
    """  # fmt: skip
    from podnet.cni.install import contents, place

    bin_dir, conf_dir = os.path.abspath(bin_dir), os.path.abspath(conf_dir)
    if systemd_dir is None:
        systemd_dir = _SYSTEMD if os.path.isdir("/run/systemd/system") else ""
    small = contents.executable()
    files = contents.programs(bin_dir, small.data, "" if no_python else contents.python())
    if systemd_dir and not no_python:
        files += contents.units(os.path.abspath(systemd_dir), bin_dir)
    if not no_conflist:
        files.append(_network(conf_dir, given, name, subnets))
    place.check(bin_dir, files)
    for each in {os.path.dirname(each.path) for each in files}:
        _make_folder(each)
    kept = [each.path for each in files if each.kept and os.path.lexists(each.path)]
    changed = place.place(bin_dir, files)
    left = [path for path in kept if path not in changed and _differs(path, files)]
    if output == "json":
        print_json({"installed": [each.path for each in files], "changed": changed, "kept": left, "note": small.note})
        return
    for path in changed:
        click.echo(f"placed {path}")
    for path in left:
        click.echo(f"kept {path}: it was there, and is not as podnet would write it")
    if small.note:
        click.echo(f"note: {small.note}")
    if not changed:
        click.echo("nothing to do: all is in place")
    elif any("systemd" in path or path.endswith(".socket") for path in changed):
        click.echo("start the server: systemctl daemon-reload && systemctl enable --now podnet-cni.socket")
    elif not no_python:
        click.echo("start the server, which makes it fast: podnet cni serve --detach")


def _network(conf_dir: str, given: str | None, name: str, subnets: tuple[str, ...]) -> Content:
    from podnet.cni.install import contents
    from podnet.cni.install.place import Content
    from podnet.cni.runtime import conflist

    if given is None:
        return Content(os.path.join(conf_dir, contents.CONFLIST), contents.conflist(name, subnets), kept=True)
    conflist.load(given)
    with open(given, "rb") as file:
        return Content(os.path.join(conf_dir, os.path.basename(given)), file.read(), kept=True)


def _make_folder(path: str) -> None:
    from podnet.cni.install.place import InstallError

    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        msg = f"cannot make {path}: {error.strerror}"
        raise InstallError(msg) from error


def _differs(path: str, files: list[Content]) -> bool:
    data = next(each.data for each in files if each.path == path)
    with open(path, "rb") as file:
        return file.read() != data


@click.command(short_help="Remove what 'install' has placed.")
@_bin_option
@output_option
def uninstall(bin_dir: str, output: str) -> None:
    """Remove exactly what 'podnet cni install' has placed, the network's configuration first.

    Attachments that there are stay: let the runtime remove them before, or 'podnet cni gc --all'.
    """
    from podnet.cni.install import place
    from podnet.errors import UsageError

    folder = os.path.abspath(bin_dir)
    if not place.installed(folder):
        msg = f"nothing is installed in {folder}: there is no {place.LIST_NAME}; --bin-dir says where"
        raise UsageError(msg)
    gone = place.remove(folder, first=(".conflist", ".conf", ".json", ".socket", ".service"))
    if output == "json":
        print_json({"removed": gone})
        return
    for path in gone:
        click.echo(f"removed {path}")
