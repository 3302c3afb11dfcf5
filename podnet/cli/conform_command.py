"""podnet conform."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podnet.cli.output import print_json, progress
from podnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["command"]


@click.command(short_help="Judge any CNI plugin against the specification, requirement by requirement.")
@click.argument("plugin", required=False)
@click.option("--list", "listing", is_flag=True, help="List the requirements, and run nothing.")
@click.option(
    "--only", multiple=True, metavar="ID", help="Only this requirement: A2b, A2 (a to z), A3@0.4.0. Again for more."
)
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.Choice(["MUST", "SHOULD", "library", "practice"]),
    help="Only requirements of this level (again for more).",
)
@click.option("--kind", type=click.Choice(["interface", "chained", "ipam"]), help="What kind of plugin it is.")
@click.option(
    "--conf",
    type=click.Path(exists=True, dir_okay=False),
    help="The network configuration to judge with; may hold {{subnet}}, {{bridge}}, {{dataDir}} ...",
)
@click.option("--cni-path", multiple=True, type=click.Path(), help="Where delegated plugins are, too (again for more).")
@click.option(
    "--cni-version",
    metavar="VERSION",
    default="1.1.0",
    show_default=True,
    help="Judge by no newer version of the specification: delegated plugins may be older.",
)
@click.option("--private", multiple=True, type=click.Path(), help="A directory that the plugin shall find empty.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 120),
    default=30.0,
    show_default=True,
    help="Seconds after which an execution is killed.",
)
@click.option("--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Cases at the same time.")
@click.option("--verbose", is_flag=True, help="Show evidence of all, and each request and answer of what failed.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "junit"]),
    default="text",
    show_default=True,
    help="What to print.",
)
@click.option("--output-file", type=click.Path(dir_okay=False), help="Write there instead; a summary is still printed.")
def command(
    plugin: str | None,
    listing: bool,
    only: tuple[str, ...],
    levels: tuple[Any, ...],
    kind: str | None,
    conf: str | None,
    cni_path: tuple[str, ...],
    cni_version: str,
    private: tuple[str, ...],
    timeout: float,
    jobs: int,
    verbose: bool,
    output: str,
    output_file: str | None,
) -> None:
    """Judge PLUGIN, the executable of a CNI plugin in whatever language, against the CNI specification.

    It is executed as a container runtime executes it, in throw-away namespaces; this machine is not touched. How
    it is to be configured is known for the usual plugins by the name of the executable; for any other give --conf.
    Exit code 0 without and 1 with a failure, 2 for wrong usage, 3 where not all could be measured.
    """
    from podnet.conform.requirements import select

    if listing:
        rows, unknown = select(only, kind=kind, levels=levels)  # type: ignore[arg-type] # click.Choice checked both
        if unknown:
            msg = f"no requirement has the id {', '.join(unknown)}"
            raise UsageError(msg)
        _list(rows, output)
        return
    if plugin is None:
        msg = "give the path of a plugin's executable, or --list"
        raise click.UsageError(msg)
    from podnet.conform.model import KNOWN_VERSIONS
    from podnet.conform.profiles import choose
    from podnet.conform.report import summary
    from podnet.conform.suite import judge, prepare

    if cni_version not in KNOWN_VERSIONS:
        msg = f"--cni-version {cni_version}: give one of {', '.join(KNOWN_VERSIONS)}"
        raise UsageError(msg)
    text = Path(conf).read_text(encoding="utf-8") if conf else ""
    profile = choose(Path(plugin).name, conf=text, kind=kind or "")
    subject = prepare(plugin, profile, cni_path=cni_path, timeout=timeout, limit=cni_version)
    with progress(f"judging {plugin}") as told:
        report = judge(
            subject, only=only, levels=levels, parallel=jobs, private=private, progress=told and partial(_count, told)
        )
    document = _render(report, output, verbose=verbose, color=sys.stdout.isatty() and not output_file)
    if output_file:
        Path(output_file).write_text(document + "\n", encoding="utf-8")
        click.echo(summary(report))
    else:
        click.echo(document)
    if report.exit_code:
        sys.exit(report.exit_code)


def _count(told: Callable[[int, int], None], done: int, total: int) -> None:
    told(done, total)


def _render(report: Any, output: str, *, verbose: bool, color: bool) -> str:
    import json

    from podnet.conform.report import as_json, as_junit, as_text

    if output == "json":
        return json.dumps(as_json(report), indent=2)
    if output == "junit":
        return as_junit(report).rstrip("\n")
    return as_text(report, verbose=verbose, color=color)


def _list(rows: Any, output: str) -> None:
    from podnet.conform.report import requirements_json, requirements_text

    if output == "text":
        click.echo(requirements_text(rows))
    elif output == "json":
        print_json(requirements_json(rows))
    else:
        msg = "a list of requirements is no JUnit report; use -o text or -o json"
        raise click.UsageError(msg)
