"""A running lab to ask: ``lab.pod("web").can_reach("db", tcp=5432)``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from podnet.errors import UsageError
from podnet.model.probe import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.lab import Lab, Target
    from podnet.model.probe import Result
    from podnet.probe.results import Results

__all__ = ["Answer", "End", "RunningLab"]

_PAUSE = 0.2  # seconds


class Answer:
    """What came of a question: true or false, and in words how one knows."""

    def __init__(self, result: Result, told: str) -> None:
        self.result = result
        self._told = told

    def __bool__(self) -> bool:
        return self.result.passed

    def __repr__(self) -> str:
        check, result = self.result.check, self.result
        what = f"{check.protocol}{f'/{check.port}' if check.port else ''} ipv{check.version}"
        detail = f" ({result.detail})" if result.detail else ""
        head = f"{check.source} -> {check.target} {what}: expected {check.verdict}, observed {result.observed}{detail}"
        return f"{head}\n{self._told}" if self._told else head


class End:
    """A pod, node or client of a lab."""

    def __init__(self, lab: RunningLab, target: Target) -> None:
        self._lab, self._target = lab, target

    @property
    def name(self) -> str:
        """Its name in the topology."""
        return self._target.name

    def can_reach(self, to: str | End, **asked: Any) -> Answer:
        """Whether a packet gets there and an answer back: by ICMP, or to the port of ``tcp``, ``udp`` or ``http``.

        All of the arguments of ``RunningLab.ask`` are taken, such as ``within`` and ``seen``.
        """
        return self._lab.ask(self.name, _name(to), **asked)

    def cannot_reach(self, to: str | End, **asked: Any) -> Answer:
        """Whether nothing comes back, or a refusal."""
        dropped = self._lab.ask(self.name, _name(to), **{"verdict": "drop", **asked})
        if dropped.result.observed != "refuse":
            return dropped
        return self._lab.ask(self.name, _name(to), **{**asked, "verdict": "refuse"})


class RunningLab:
    """A lab that is up; ``namespaces`` are all of its network namespaces."""

    def __init__(self, lab: Lab, namespaces: Sequence[str]) -> None:
        self.lab, self.namespaces = lab, tuple(namespaces)

    @property
    def name(self) -> str:
        """Its name, by which podnet's commands find it."""
        return self.lab.name

    def pod(self, name: str) -> End:
        """A pod, node or client by its name. Raises ``UsageError`` where there is none."""
        target = self.lab.target(name)
        if target is None:
            msg = f"lab {self.lab.name} has no {name}: there are {', '.join(t.name for t in self.lab.targets)}"
            raise UsageError(msg)
        return End(self, target)

    node = client = pod

    def ask(
        self,
        source: str,
        to: str,
        *,
        tcp: int = 0,
        udp: int = 0,
        http: int = 0,
        verdict: str = "reach",
        family: int = 0,
        seen: str = "any",
        within: float = 0,
    ) -> Answer:
        """Send a probe and compare; asked again until it is as expected, for ``within`` seconds.

        ``verdict`` is ``reach``, ``refuse`` or ``drop``, ``family`` 4 or 6 (the lab's first one by default), ``seen``
        the address that the receiver must see: ``own``, ``node``, ``any`` or an address.
        """
        given = [(name, port) for name, port in (("tcp", tcp), ("udp", udp), ("http", http)) if port]
        if len(given) > 1:
            msg = f"one of tcp, udp and http at a time, not {' and '.join(name for name, _ in given)}"
            raise UsageError(msg)
        protocol, port = given[0] if given else ("icmp", 0)
        version = family or self.lab.versions[0]
        check = Check(source, to, protocol, version, port, verdict, seen, listen=not port, origin="test")
        return self._answer(check, within)

    def expect(self, source: str, to: str, **asked: Any) -> None:
        """``ask``, and raise ``AssertionError`` with path and verdict where it is otherwise."""
        answer = self.ask(source, to, **asked)
        if not answer:
            raise AssertionError(repr(answer))

    def test(self, protocols: Sequence[str] = ("icmp", "tcp", "udp")) -> Results:
        """All that the model and the file expect, as ``podnet test`` does it."""
        from podnet.probe.expect import derive
        from podnet.probe.verify import verify

        return verify(self.lab, derive(self.lab, protocols), namespaces=self.namespaces)

    def _answer(self, check: Check, within: float) -> Answer:
        from podnet.probe.engine import run
        from podnet.probe.trace import trace

        until = time.monotonic() + within
        while True:
            [result] = run(self.lab, [check], timeout=0.5)
            if result.passed or time.monotonic() > until:
                break
            time.sleep(_PAUSE)
        if result.passed or check.protocol not in ("icmp", "tcp", "udp"):
            return Answer(result, "")
        from podnet.report.story import story

        return Answer(result, story(trace(self.lab, check, self.namespaces)))


def _name(end: str | End) -> str:
    return end if isinstance(end, str) else end.name
