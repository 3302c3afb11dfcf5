"""Send the probes of a lab, watch what comes of them, and judge.

All probes go out in bulk, by as many threads as there are processors: the kernel does nearly all of the work, and does
it while a thread waits in ``sendmmsg``. There is one quiet period for all probes after the last answer, not one each:
so a blocked path costs the same as a thousand. What stays silent is sent again before it is called dropped, and a
namespace of which nothing was seen must show by a control probe that it would have been.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from podnet.probe.exchange import Exchange
from podnet.probe.paths import Paths
from podnet.probe.plan import Checks
from podnet.probe.results import Results
from podnet.probe.session import Session
from podnet.probe.stamp import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podnet.model.lab import Lab
    from podnet.model.probe import Check

__all__ = ["run"]


def run(
    lab: Lab,
    checks: Sequence[Check],
    *,
    timeout: float = 1.0,
    progress: Callable[[int], None] | None = None,
    tapped: Sequence[str] = (),
    this: Run | None = None,
    attempts: int = 3,
    meanwhile: Callable[[Results], None] | None = None,
) -> Results:
    """Send a probe for every check and return one result each, in the same order.

    ``timeout`` is the longest that silence is waited for, in seconds; ``progress`` is told how many checks have
    their answer. With ``tapped``, namespaces, the results have the ``paths`` of all packets through them; ``this`` is
    the mark of the packets, for who looks on; ``attempts`` is how often what is silent is sent. ``meanwhile``
    is called with what the results would be, where silence has to be waited for to the end of its time.

    Raises ``UsageError`` for a check of a target that the lab does not have and ``KernelError`` where this process
    cannot open the sockets; a single namespace that is gone gives ``unproven`` results.
    """
    planned = Checks.of(lab, checks)
    this = this or Run(secrets.randbits(32) | 1 << 24)  # no SCTP tag may be 0
    with Session(lab, planned, this, timeout, tapped) as session:

        def provisional() -> None:
            if meanwhile is not None:
                meanwhile(Results(lab, planned, session.ledger))

        exchange = Exchange(session, this, timeout, progress, attempts, provisional)
        try:
            exchange.run()
            results = Results(lab, planned, session.ledger, exchange.remark())
            if tapped:
                results.paths = Paths(lab, planned, tapped, session.taps, exchange.records, session.ledger)
            return results
        finally:
            exchange.close()
