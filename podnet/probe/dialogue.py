"""Probes that are conversations of real sockets: TCP connections, HTTP requests, DNS queries.

The kernel of the sender chooses address and port and does the handshake, as for any program. Against podnet's own
listener a conversation is over when the stamp has come to the receiver, which then knows the sender's address; against
a program's port, when the program has said what its protocol asks for.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from podnet.kernel.netns import entered
from podnet.probe.ledger import REPLIED, RESETTED, SILENT
from podnet.probe.speech import Connect, Dns, Http

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.probe.plan import Kind
    from podnet.probe.session import Session
    from podnet.probe.speech import Speech
    from podnet.probe.stamp import Run

__all__ = ["Dialogue"]

_AT_ONCE = 500  # conversations of one batch: each needs two open files
_ROUNDS = 3
_LEAST_QUIET = 0.05
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_SPEECH: dict[str, type[Speech]] = {"connect": Connect, "http": Http, "dns": Dns}
_RESET_ON_CLOSE = struct.pack("@ii", 1, 0)  # struct linger: no TIME_WAIT that would keep thousands of ports
_WAITING = {errno.EINPROGRESS, errno.EAGAIN}


class _Listener(NamedTuple):
    sock: socket.socket
    here: int
    version: int
    speech: Speech


class _Talk:
    """One conversation of a sender, or of a receiver that does not know yet which it is (``index`` -1)."""

    __slots__ = ("heard", "index", "listener", "peer", "said", "sock", "speech")

    def __init__(self, sock: socket.socket, speech: Speech, index: int) -> None:
        self.sock, self.speech, self.index = sock, speech, index
        self.said, self.heard = False, b""
        self.listener: _Listener | None = None
        self.peer = ""


def _is_asked(talk: _Talk) -> bool:
    """Whether a program was asked by TCP, and has not answered yet."""
    return talk.said and not talk.speech.own and talk.speech.kind == socket.SOCK_STREAM


class Dialogue:
    """All conversations of a run; use it by ``with``."""

    def __init__(self, session: Session, run: Run, timeout: float) -> None:
        self._session, self._run, self._timeout = session, run, timeout
        self._ledger = session.ledger
        self._stack = ExitStack()
        self._poll = select.epoll()
        self._listeners: dict[int, _Listener] = {}
        self._ports: dict[tuple[int, str, int], int] = {}
        self._talks: dict[int, _Talk] = {}
        self._spoken: dict[int, _Talk] = {}  # by check: all is said, and podnet's own receiver has to hear it

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        for talk in (*self._talks.values(), *self._spoken.values()):
            talk.sock.close()
        self._poll.close()
        self._stack.close()

    def run(self) -> None:
        """Have every conversation, up to three times each."""
        groups = self._session.talks
        for number in range(_ROUNDS):
            last = number == _ROUNDS - 1
            going_on = {talk.index for talk in self._talks.values()}
            for (kind, source), indexes in groups.items():
                silent = [index for index in indexes if not self._ledger.state[index] and index not in going_on]
                for at in range(0, len(silent), _AT_ONCE):
                    self._begin(self._session.checks.kinds[kind], source, silent[at : at + _AT_ONCE])
                    self._hear(0)
                    if len(self._talks) + len(self._spoken) > 2 * _AT_ONCE:
                        self._settle(_LEAST_QUIET)
            self._settle(self._timeout if last else _LEAST_QUIET, keep=not last)
        for indexes in groups.values():
            for index in indexes:
                if not self._ledger.state[index]:
                    self._ledger.state[index] |= SILENT

    # -- the sender's side ----------------------------------------------------------------------------------------

    def _begin(self, kind: Kind, source: int, indexes: Sequence[int]) -> None:
        session, ledger = self._session, self._ledger
        vantage = session.vantages[session.homes[source]]
        speech = _SPEECH[kind.protocol](kind.listen)
        with ExitStack() as opened:
            try:
                ports = [self._port(kind, session.target[index]) for index in indexes]
                with entered(vantage.netns):
                    socks = [
                        opened.enter_context(socket.socket(_FAMILY[kind.version], speech.kind | socket.SOCK_NONBLOCK))
                        for _ in indexes
                    ]
            except OSError as error:
                for index in indexes:
                    ledger.fail(index, f"no socket for a conversation: {error.strerror}")
                return
            opened.pop_all()
        for index, sock, port in zip(indexes, socks, ports, strict=True):
            target = session.target[index]
            aim = session.aim(target, kind.version)
            if port is None or aim is None:
                sock.close()
                continue
            if speech.kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            ledger.sent[index] = time.time_ns()
            number = sock.connect_ex((aim.text, port))
            if number and number not in _WAITING:
                self._refused(index, number, sock)
                continue
            ledger.attempts[index] += 1
            ledger.send_errno[index] = 0
            talk = _Talk(sock, speech, index)
            # On one machine the answer is mostly there already: no need to be woken up for it.
            if not self._speak(talk):
                self._talks[sock.fileno()] = talk
                self._poll.register(sock.fileno(), select.EPOLLIN if talk.said else select.EPOLLOUT)

    def _port(self, kind: Kind, target: int) -> int | None:
        """The port of a receiver, where podnet listens itself if need be."""
        if not kind.listen:
            return kind.port
        key = (target, kind.protocol, kind.version)
        if key not in self._ports:
            session, speech = self._session, _SPEECH[kind.protocol](True)
            aim, here = session.aim(target, kind.version), session.homes[target]
            if aim is None or here < 0:
                return None
            sock = session.vantages[here].bound(speech.kind, kind.version, aim.text)
            if speech.kind == socket.SOCK_STREAM:
                sock.listen(4096)
            self._listeners[sock.fileno()] = _Listener(sock, here, kind.version, speech)
            self._poll.register(sock.fileno(), select.EPOLLIN)
            self._ports[key] = sock.getsockname()[1]
        return self._ports[key]

    def _refused(self, index: int, number: int, sock: socket.socket) -> None:
        """What ``connect`` says at once is the answer where it is one, else the reason why nothing was sent."""
        sock.close()
        if number == errno.ECONNREFUSED:
            self._ledger.attempts[index] += 1
            self._ledger.state[index] |= RESETTED
        elif not self._ledger.attempts[index]:
            self._ledger.send_errno[index] = number

    def _speak(self, talk: _Talk) -> bool:
        """Say what a sender says; whether the conversation is over for it, well or not."""
        session, index = self._session, talk.index
        stamp = self._run.payload(session.source[index], session.target[index], index)
        try:
            if not talk.said:
                talk.sock.send(talk.speech.request(stamp))
                talk.said = True
            if not talk.speech.waits:
                self._over(talk)
                return True
            return self._listen_to(talk)
        except BlockingIOError:
            return False
        except OSError as error:
            self._broken(talk, error.errno or errno.EIO)
            return True

    def _listen_to(self, talk: _Talk) -> bool:
        heard = talk.sock.recv(2048)
        talk.heard += heard
        verdict = talk.speech.understood(talk.heard)
        if verdict is None and heard:
            return False
        if verdict:
            self._over(talk)
        else:
            text = "closed without an answer" if not talk.heard else f"no {talk.speech.name} answer"
            self._ledger.refuse(talk.index, refused=True, text=text, reporter="")
            talk.sock.close()
        return True

    def _over(self, talk: _Talk) -> None:
        """Nothing more is to be heard; against podnet's own listener it is the receiver who completes the check."""
        if not talk.speech.own or talk.speech.waits:
            self._ledger.answered[talk.index] = time.time_ns()
            self._ledger.state[talk.index] |= REPLIED
            if not talk.speech.own:
                self._ledger.arrived[talk.index] = self._ledger.answered[talk.index]
        if talk.speech.waits or not talk.speech.own:
            talk.sock.close()
        else:
            # A close would reset the connection, and take what was said along.
            self._spoken[talk.index] = talk

    def _broken(self, talk: _Talk, number: int) -> None:
        talk.sock.close()
        if number in (errno.ECONNREFUSED, errno.ECONNRESET):
            if talk.speech.kind == socket.SOCK_STREAM:
                self._ledger.state[talk.index] |= RESETTED
            else:
                self._ledger.refuse(talk.index, refused=True, text="ICMP port unreachable", reporter="")
        elif number != errno.ETIMEDOUT:
            self._ledger.refuse(talk.index, refused=True, text=f"ICMP error: {os.strerror(number)}", reporter="")
        self._ledger.answered[talk.index] = time.time_ns()

    # -- both sides -----------------------------------------------------------------------------------------------

    def _settle(self, quiet: float, *, keep: bool = False) -> None:
        """Hear until nothing came for so many seconds, and close what is open then.

        ``keep`` keeps connections to programs that have been asked: TCP repeats by itself what is lost, and a second
        question would make a slow program no faster.
        """
        until = time.monotonic() + quiet
        while (self._talks or self._spoken) and (left := until - time.monotonic()) > 0:
            if self._hear(left):
                until = time.monotonic() + quiet
        kept = {fd: talk for fd, talk in self._talks.items() if keep and _is_asked(talk)}
        for talk in (*self._talks.values(), *self._spoken.values()):
            if talk.sock.fileno() not in kept:
                talk.sock.close()  # which takes it out of epoll's set
        self._talks = kept
        self._spoken.clear()

    def _hear(self, wait: float) -> bool:
        news = False
        for fd, _ in self._poll.poll(wait, 4096):
            listener = self._listeners.get(fd)
            if listener is not None:
                self._accept(listener) if listener.speech.kind == socket.SOCK_STREAM else self._reply(listener)
                news = True
                continue
            talk = self._talks.get(fd)
            if talk is None:
                continue
            news = True
            if talk.listener is not None:
                if self._received(talk):
                    del self._talks[fd]
            elif self._done_waiting(talk, fd):
                self._talks.pop(fd, None)
        return news

    def _done_waiting(self, talk: _Talk, fd: int) -> bool:
        """One step of a sender; afterwards its socket is closed, or waits for the answer."""
        self._poll.unregister(fd)
        if self._speak(talk):
            return True
        self._poll.register(fd, select.EPOLLIN if talk.said else select.EPOLLOUT)
        return False

    # -- the receiver's side --------------------------------------------------------------------------------------

    def _accept(self, listener: _Listener) -> None:
        """Take one connection: of most senders there is one at a time, and epoll tells of those that remain."""
        try:
            sock, address = listener.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        talk = _Talk(sock, listener.speech, -1)
        talk.listener, talk.peer = listener, address[0]
        # What the sender said is mostly there already.
        if not self._received(talk):
            self._talks[sock.fileno()] = talk
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def _received(self, talk: _Talk) -> bool:
        """One step of a receiver; whether the conversation is over for it."""
        try:
            talk.heard += talk.sock.recv(2048, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            talk.heard = b""
        index = talk.speech.stamped(talk.heard, self._run)
        if index is not None and talk.listener is not None:
            self._arrived(talk.listener, index, talk.peer)
            answer = talk.speech.answer(talk.heard)
            if answer:
                with suppress(OSError):  # who does not wait for it will be silent
                    talk.sock.send(answer, socket.MSG_DONTWAIT)
            elif sender := self._spoken.pop(index, None):
                sender.sock.close()  # by a reset, which ends both sides for good
        elif index is None:
            talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        talk.sock.close()
        return True

    def _reply(self, listener: _Listener) -> None:
        while True:
            try:
                heard, address = listener.sock.recvfrom(2048)
            except BlockingIOError:
                return
            index = listener.speech.stamped(heard, self._run)
            if index is not None:
                self._arrived(listener, index, address[0])
                try:
                    listener.sock.sendto(listener.speech.answer(heard), address)
                except OSError as error:
                    self._ledger.echo_errno[index] = error.errno or errno.EIO

    def _arrived(self, listener: _Listener, index: int, peer: str) -> None:
        session, ledger = self._session, self._ledger
        if index >= len(ledger) or session.homes[session.target[index]] != listener.here or ledger.arrived[index]:
            return
        ledger.arrived[index] = time.time_ns()
        ledger.seen[index] = ledger.number(socket.inet_pton(_FAMILY[listener.version], peer))
        if not listener.speech.waits:
            ledger.answered[index] = ledger.arrived[index]
            ledger.state[index] |= REPLIED
