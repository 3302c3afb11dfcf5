"""Why what failed in a run of ``podnet test`` did so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.diagnose.cause import Diagnosis
    from podnet.model.lab import Lab
    from podnet.probe.results import Results

__all__ = ["causes"]


def causes(name: str | None, lab: Lab, results: Results, places: Sequence[str], why: bool | None) -> list[Diagnosis]:
    """Replay what failed, which takes about half a second; nothing for ``why`` false.

    ``name`` is a running lab's, ``None`` for namespaces that podnet did not make: of those it is taken that they
    should be as they are. Without a word about ``why``, the answer to an exercise is not given away.
    """
    failed = list(results.failed())
    if why is None and name is not None:
        from podnet.fault import ledger

        why = not any(entry.hidden for entry in ledger.load(name))
    if why is False or not failed:
        return []
    from podnet.diagnose.why import diagnose, subjects_of

    if name is not None:
        from podnet.lab import record

        return diagnose(lab, record.find(name).wanted, subjects_of(failed))
    from contextlib import closing

    from podnet.kernel.linux import LinuxKernel

    with closing(LinuxKernel()) as kernel:
        return diagnose(lab, kernel.observe(places), subjects_of(failed), running=False)
