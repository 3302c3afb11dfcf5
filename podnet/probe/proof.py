"""What the silence of a run proves: both ends of a silent check must be shown alive, or there is no verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.probe.ledger import FAILED, REPLIED, RESETTED, SILENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.probe.session import Session, Unit

__all__ = ["Proof"]

_ROUNDS = 3


class Proof:
    """Judges the evidence of a session's first ``total`` checks, before it becomes verdicts.

    ``ask`` sends units and reads until a condition holds or the time of silence is over. ``overflowed`` tells that
    the machine's neighbour table was full during the run, so that packets were lost that no network under test lost.
    """

    def __init__(
        self,
        session: Session,
        total: int,
        ask: Callable[[list[Unit], Callable[[], bool]], None],
        *,
        overflowed: bool,
    ) -> None:
        self._session, self._ledger, self._total = session, session.ledger, total
        self._ask, self._overflowed = ask, overflowed

    def judge(self) -> None:
        """Mark what is not proven, and what podnet's own full buffers may have lost."""
        self._prove()
        self._blame_lost()

    def _prove(self) -> None:
        session, ledger = self._session, self._ledger
        columns = zip(ledger.state, ledger.attempts, ledger.arrived, strict=True)
        # Neither is "somebody else answered", if only a capture that hears nothing says that nothing arrived.
        doubtful = [
            index
            for index, (state, attempts, arrived) in enumerate(columns)
            if index < self._total and attempts and (not state & ~SILENT or (state == REPLIED and not arrived))
        ]
        if self._overflowed:
            why = "no answer, but the neighbour table was full meanwhile (sysctl net.ipv4.neigh.default.gc_thresh3)"
            ledger.unproven.update(dict.fromkeys(doubtful, why))
            return
        needed = {(session.homes[end[index]], self._version(index)) for index in doubtful for end in session.ends}
        for here, vantage in enumerate(session.vantages):
            needed -= {(here, capture.version) for capture in vantage.captures if capture.heard}
        if needed:
            self._doubt(doubtful, self._deaf(needed))

    def _doubt(self, doubtful: list[int], dead: set[tuple[int, int]]) -> None:
        session = self._session
        for index in doubtful:
            source, target = (session.homes[end[index]] for end in session.ends)
            if source == target and not session.vantages[source].loopback_up():
                continue  # the control probe takes the same way: what keeps it is what keeps the probe
            for end in session.ends:
                if (session.homes[end[index]], self._version(index)) in dead:
                    name = session.checks.names[end[index]]
                    self._ledger.unproven[index] = f"no answer, but {name} does not hear its own control probe either"

    def _deaf(self, needed: set[tuple[int, int]]) -> set[tuple[int, int]]:
        """Which of these, numbers of a vantage and IP versions, do not hear an echo to themselves."""
        arrived, controls = self._ledger.arrived, self._session.controls
        asked = {key: controls[key] for key in needed if key in controls}

        def missing() -> set[tuple[int, int]]:
            return {key for key, (_, index) in asked.items() if not arrived[index]}

        for _ in range(_ROUNDS):
            if missing():
                self._ask([asked[key][0] for key in missing()], lambda: not missing())
        return missing() | {key for key in needed if key not in controls}

    def _version(self, index: int) -> int:
        checks = self._session.checks
        return checks.kinds[checks.kind[index]].version

    def _blame_lost(self) -> None:
        """A check whose packets may have been lost in our own full buffer has no verdict."""
        session, ledger = self._session, self._ledger
        deaf = [sum(capture.lost() for capture in vantage.captures) for vantage in session.vantages]
        if not any(deaf):
            return
        for unit in session.units:
            for index in unit.indexes:
                if ledger.arrived[index] and ledger.state[index]:
                    continue
                if ledger.state[index] & (FAILED | RESETTED) and not ledger.arrived[index]:
                    continue
                for end in session.ends:
                    lost = deaf[session.homes[end[index]]]
                    if lost:
                        where = session.vantages[session.homes[end[index]]].netns or "the machine"
                        ledger.fail(index, f"the capture in {where} lost {lost} packets")
