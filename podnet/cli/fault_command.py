"""podnet fault."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from podnet.cli.output import lab_kernel, output_option, print_json, table

if TYPE_CHECKING:
    from podnet.fault.ledger import Entry

__all__ = ["command"]

_lab = click.option("--lab", help="The lab, where several run.")


@click.group(short_help="Break a running lab on purpose, by name, and put it right again.")
def command() -> None:
    """Faults by name: to see what they look like, to practise, to test what claims to find them.

    \b
      podnet fault list                        what there is
      podnet fault inject forwarding-off       do it; 'podnet test' shows it
      podnet fault clear                       as it was before
      podnet fault inject --hidden --seed 7    an exercise: find out what it is ...
      podnet fault check "..."                 ... and have your answer judged

    Faults change only the lab's own namespaces (but for neighbour-table-full, which asks for --machine), and 'podnet
    down' takes them along. 'podnet up' repairs what is part
    of the topology: after it, a fault may be gone, which 'podnet fault list' says.
    """


@command.command("list", short_help="The library, and what is injected where.")
@_lab
@output_option
def show(lab: str | None, output: str) -> None:
    """List all faults, and those that are in the running labs.

    Of a hidden fault only its number is told.
    """
    from podnet.fault import ledger
    from podnet.fault.library import FAULTS
    from podnet.lab import record

    names = [record.find(lab).name] if lab else record.names()
    injected = [(name, entry, _state(name, entry)) for name in names for entry in ledger.load(name)]
    if output == "json":
        library = [{"name": f.name, "does": f.does, "versions": f.versions, "says": list(f.says)} for f in FAULTS]
        print_json({"faults": library, "injected": [_json(name, entry, state) for name, entry, state in injected]})
        return
    click.echo(table(["NAME", "WHAT IT DOES"], [[fault.name, fault.does] for fault in FAULTS]))
    for name, entry, state in injected:
        click.echo(f"\nlab {name}, fault {entry.number}: {'hidden' if entry.hidden else entry} ({state})", nl=False)
    if injected:
        click.echo()


def _state(name: str, entry: Entry) -> str:
    from podnet.fault.effect import Hands
    from podnet.fault.inject import remaining
    from podnet.lab import record

    with lab_kernel(name) as (kernel, supervisor):
        state = remaining(entry, Hands(record.find(name).wanted, kernel, supervisor))
    return state if entry.settled else f"{state}, injected by a podnet that was killed"


def _json(name: str, entry: Entry, state: str) -> dict[str, object]:
    shown: dict[str, object] = {"lab": name, "number": entry.number, "hidden": entry.hidden, "state": state}
    if not entry.hidden:
        family = f"ipv{entry.version}" if entry.version else None
        shown |= {"fault": entry.fault, "at": entry.at, "to": entry.to or None, "family": family}
    return shown


@command.command(short_help="Break something.")
@click.argument("name", required=False)
@_lab
@click.option("--at", default="", metavar="TARGET", help="Where: a pod, node, router or client.")
@click.option("--to", default="", metavar="TARGET", help="Towards what, for faults that are about a pair.")
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), help="For which IP version.")
@click.option("--hidden", is_flag=True, help="Do not say what it is; without NAME any fault is taken.")
@click.option("--seed", type=int, help="Choose what is left open by this number: the same again in the same lab.")
@click.option("--machine", is_flag=True, help="Also do what changes the machine itself, for all of its networks.")
@output_option
def inject(
    name: str | None,
    lab: str | None,
    at: str,
    to: str,
    family: str | None,
    hidden: bool,
    seed: int | None,
    machine: bool,
    output: str,
) -> None:
    """Do the fault NAME to a lab, at a place that is given or else the first that fits."""
    from podnet.fault.inject import Wish, expected, site_of
    from podnet.fault.inject import inject as do
    from podnet.lab import record

    if name is None and not hidden:
        raise click.UsageError("give the NAME of a fault ('podnet fault list'), or --hidden for any")
    found = record.find(lab).name
    wish = Wish(name or "", at, to, int(family[-1]) if family else 0, hidden, seed, machine)
    with lab_kernel(found) as (kernel, supervisor):
        entry = do(found, wish, kernel, supervisor)
        broken = expected(site_of(record.find(found), kernel), entry)
    if output == "json":
        print_json(_json(found, entry, "in effect") | ({} if hidden else {"expected_failures": broken}))
    elif hidden:
        click.echo(
            f"lab {found}: fault {entry.number} is in. 'podnet test' shows what fails, but not why; answer with\n"
            'podnet fault check "WHAT at WHERE"'
        )
    else:
        effect = f"{broken} of the lab's checks must fail" if broken else _beside(entry)
        click.echo(f"lab {found}: fault {entry.number}, {entry}: {effect}")


def _beside(entry: Entry) -> str:
    from podnet.fault.library import named

    if named(entry.fault).large:
        return "only large packets are lost ('podnet why SOURCE TARGET --size 1500' shows it)"
    return "none of the lab's own checks fails by it"


@command.command(short_help="Put right what was broken.")
@click.argument("numbers", nargs=-1, type=int, metavar="[NUMBER]...")
@_lab
@output_option
def clear(numbers: tuple[int, ...], lab: str | None, output: str) -> None:
    """Undo the faults of these NUMBERs, or all, and check that everything is as it was before."""
    from podnet.fault.inject import clear as undo
    from podnet.lab import record

    found = record.find(lab).name
    with lab_kernel(found) as (kernel, supervisor):
        cleared = undo(found, numbers, kernel, supervisor)
    if output == "json":
        print_json([_json(found, entry._replace(hidden=False), state) for entry, state in cleared])
        return
    for entry, state in cleared:
        was = "" if state == "in effect" else f" (was {state} already)"
        click.echo(f"lab {found}: fault {entry.number}, {entry}: cleared{was}")
    if not cleared:
        click.echo(f"lab {found}: there is no fault: nothing to do", err=True)


@command.command(short_help="Judge the answer to an exercise.")
@click.argument("answer", nargs=-1, required=True)
@_lab
def check(answer: tuple[str, ...], lab: str | None) -> None:
    """Judge ANSWER: the name of a fault or of its cause, and where it is. Exits with 1 where it is not right."""
    from podnet.fault import ledger
    from podnet.fault.inject import grade
    from podnet.lab import record

    found = record.find(lab).name
    judged = grade(ledger.load(found), " ".join(answer))
    if judged is None:
        click.echo(f"lab {found} has no fault: 'podnet fault inject --hidden' makes one", err=True)
        sys.exit(2)
    if judged.named and judged.placed:
        click.echo(f"right: {judged.entry}")
        return
    if judged.named:
        click.echo("the fault is right, its place is not")
    elif judged.placed:
        click.echo("the place is right, the fault is not")
    else:
        click.echo("no")
    sys.exit(1)
