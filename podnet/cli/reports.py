"""Where and how `podnet test` reports: -o FORMAT, or -o FORMAT=FILE, as often as wanted."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podnet.diagnose.cause import Diagnosis
    from podnet.model.lab import Lab
    from podnet.probe.results import Results
    from podnet.report.blame import Blame

__all__ = ["FORMATS", "Output", "Outputs", "write"]

_MOST_CAPTURED = 200  # failed checks in a pcapng file
FORMATS = ("text", "json", "junit", "tap", "html", "pcapng")


class Output(NamedTuple):
    """One report; an empty ``path`` is standard output."""

    form: str
    path: str


class Outputs(click.ParamType[Output]):
    """``FORMAT`` or ``FORMAT=FILE``."""

    name = "FORMAT[=FILE]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Output:
        if isinstance(value, Output):
            return value
        form, _, path = str(value).partition("=")
        if form not in FORMATS:
            self.fail(f"{form!r} is none of {', '.join(FORMATS)}", param, ctx)
        if form == "pcapng" and not path:
            self.fail("pcapng is no text: write -o pcapng=FILE", param, ctx)
        if "=" in str(value) and not path:
            self.fail(f"the name of a file is missing behind {form}=", param, ctx)
        return Output(form, path)


def write(
    outputs: Sequence[Output], lab: Lab, results: Results, seconds: float, namespaces: Sequence[str],
    diagnoses: Sequence[Diagnosis] = (),
) -> None:  # fmt: skip
    """Write every report; without one for standard output, the text goes there. Raises ``UsageError`` for bad files."""
    if sum(not output.path for output in outputs) > 1:
        from podnet.errors import UsageError

        msg = "only one report fits on standard output: give the others a file, as in -o junit=FILE"
        raise UsageError(msg)
    from podnet.report.blame import Blame

    blame = Blame(lab, results.failed(), diagnoses)
    for output in outputs:
        if output.form == "pcapng":
            _capture(output.path, lab, results, namespaces, blame)
        elif output.path:
            _to_file(output, _pieces(output.form, lab, results, seconds, diagnoses, blame, terminal=False))
    if not any(not output.path for output in outputs):
        outputs = [*outputs, Output("text", "")]
    for output in outputs:
        if not output.path:
            terminal = sys.stdout.isatty()
            for piece in _pieces(output.form, lab, results, seconds, diagnoses, blame, terminal=terminal):
                click.echo(piece, nl=False)


def _to_file(output: Output, pieces: Iterable[str]) -> None:
    from podnet.errors import UsageError

    try:
        with open(output.path, "w", encoding="utf-8") as file:
            file.writelines(pieces)
    except OSError as error:
        msg = f"cannot write {output.path}: {error.strerror}"
        raise UsageError(msg) from None


def _capture(path: str, lab: Lab, results: Results, namespaces: Sequence[str], blame: Blame) -> None:
    """Probe what failed once more, and save what every device saw of it, with what is known of its cause."""
    from podnet.errors import UsageError
    from podnet.probe.trace import frames_of
    from podnet.report.pcapng import pcapng
    from podnet.report.remarks import about, remark

    failed = [result for result in results.failed() if result.check.protocol in ("icmp", "tcp", "udp", "sctp")]
    failed = failed[:_MOST_CAPTURED]
    frames = frames_of(lab, [result.check for result in failed], namespaces) if failed else []
    places = {target.netns: target.name for target in lab.targets}
    try:
        with open(path, "wb") as file:
            file.writelines(
                pcapng(
                    frames,
                    lambda netns: places.get(netns, netns.removeprefix(f"{lab.name}.")),
                    comment=about(lab, blame.causes),
                    comments=[remark(result, blame) for result in failed],
                )
            )
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise UsageError(msg) from None


def _pieces(
    form: str, lab: Lab, results: Results, seconds: float, diagnoses: Sequence[Diagnosis], blame: Blame, *,
    terminal: bool,
) -> Iterable[str]:  # fmt: skip
    if form == "json":
        from podnet.report import diagnosis
        from podnet.report.json import document

        found = document(lab, results)
        found |= {"causes": diagnosis.causes(blame.causes), "diagnoses": diagnosis.document(diagnoses)}
        return [json.dumps(found, indent=2) + "\n"]
    if form == "junit":
        from podnet.report.junit import junit

        return junit(lab, results, seconds, blame)
    if form == "tap":
        from podnet.report.tap import tap

        return tap(results, blame)
    if form == "html":
        from podnet.report.html import page

        return [page(lab, results, time.strftime("%Y-%m-%d %H:%M:%S"), blame)]
    return [_text(lab, results, diagnoses, blame, terminal=terminal)]


def _text(lab: Lab, results: Results, diagnoses: Sequence[Diagnosis], blame: Blame, *, terminal: bool) -> str:
    from podnet.report.diagnosis import paragraphs
    from podnet.report.text import findings, matrix, summary

    width = shutil.get_terminal_size((120, 24)).columns
    found = findings(lab, results, blame=blame)
    parts = [matrix(lab, results, color=terminal, width=width), found, paragraphs(diagnoses)]
    if results.paths is not None:
        from podnet.report.ways import ways

        parts.append(ways(lab, results))
    parts.append(summary(results))
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"
