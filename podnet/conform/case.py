"""One case: what a requirement's function can do with the plugin, on its bench.

The functions in ``sections`` say what is asked and what must come out; everything else (environment, configuration
per verb and version, namespaces, observation) is here.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podnet.conform import results
from podnet.conform.bench import WORK_DIR
from podnet.conform.model import Exchange, NotMeasuredError, not_applicable, violated
from podnet.conform.observe import Snapshot, added, ip_json, lost, observe, run_tool
from podnet.conform.plugin import execute
from podnet.conform.profiles import render
from podnet.conform.subject import UPLINK, Attachment, Network, Sandbox, Subject
from podnet.kernel import netns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Case", "Delegate", "error_of", "told"]

_TAKEN_APART_WITHIN = 30.0  # seconds: the kernel takes deleted namespaces apart in the background, one worker for all
_SETTLES_WITHIN = 0.5  # seconds
_DELEGATE = "podnet-conform-delegate"
_SKIPPED = (netns.NETNS_DIR, f"{WORK_DIR}/delegate")
_NOT_STATE = ("-wal", "-shm", "-journal", ".log", ".jsonl")


class Case:
    """The plugin on its bench; ``version`` is the cniVersion that configurations have unless they say otherwise."""

    def __init__(self, subject: Subject, version: str) -> None:
        self.subject = subject
        self.profile = subject.profile
        self.version = version
        self.exchanges: list[Exchange] = []
        self.ids: list[str] = []
        self.networks: dict[str, Network] = {}
        self.changes: dict[str, Any] = {}
        self.cni_path = list(subject.cni_path)
        self._attachments = 0
        self._leaving: list[str] = []
        if "{{uplink}}" in json.dumps(self.profile.conf):
            netns.create("outside")
            self.tool("ip", "link", "add", UPLINK, "up", "type", "veth", "peer", "name", "uplink0", "netns", "outside")
            self.tool("ip", "-n", "outside", "link", "set", "uplink0", "up")

    # What there is to attach

    def tool(self, *argv: str) -> str:
        """Run a tool of the suite's own; a failure is not the plugin's fault."""
        done = run_tool(list(argv))
        if done.returncode != 0:
            msg = f"'{' '.join(argv)}' failed: {done.stderr.strip()}"
            raise NotMeasuredError(msg)
        return done.stdout

    def network(self, name: str = "conform", *, prefix: int = 24) -> Network:
        """A network by name; its pool of addresses is a /24 unless this first call says otherwise."""
        if name not in self.networks:
            self.networks[name] = Network(name, len(self.networks), prefix)
        return self.networks[name]

    def sandbox(self) -> Sandbox:
        """A new container with an empty network namespace, loopback up."""
        number = len(self.ids) + 1
        identity = f"conform{number}-{number:02d}9f86d081884c7d65"
        self.ids.append(identity)
        made = Sandbox(identity, f"c{number}")
        netns.create(made.namespace)
        self.tool("ip", "-n", made.namespace, "link", "set", "lo", "up")
        return made

    def attachment(
        self, sandbox: Sandbox | None = None, *, ifname: str = "", network: Network | None = None
    ) -> Attachment:
        """What an ADD would attach; for a chained plugin with the veth that it finds."""
        self._attachments += 1
        made = Attachment(
            sandbox or self.sandbox(), ifname or self.profile.ifname, network or self.network(), self._attachments
        )
        values = {**made.network.values, "hostPort": 20000 + made.number}
        made.runtime_config = render(dict(self.profile.runtime_config), values)
        if self.profile.kind == "chained":
            made.before = self._veth(made)
        return made

    def _veth(self, made: Attachment) -> dict[str, Any]:
        """Make what a plugin before this one would have made: a veth with an address, routed to."""
        host, inside, gateway = f"vconf{made.number}", made.sandbox.namespace, made.network.values["gateway"]
        address = f"10.88.{made.network.number}.{made.number + 1}"
        self.tool("ip", "link", "add", host, "type", "veth", "peer", "name", made.ifname, "netns", inside)
        for arguments in (
            ("link", "set", host, "up"),
            ("addr", "add", f"{gateway}/32", "dev", host),
            ("route", "add", f"{address}/32", "dev", host),
            ("-n", inside, "link", "set", made.ifname, "up"),
            ("-n", inside, "addr", "add", f"{address}/24", "dev", made.ifname),
            ("-n", inside, "route", "replace", "default", "via", gateway, "dev", made.ifname),
        ):
            self.tool("ip", *arguments)
        return {
            "interfaces": [
                {"name": host, "mac": ip_json("", "link", "show", host)[0]["address"]},
                {
                    "name": made.ifname,
                    "mac": ip_json(inside, "link", "show", made.ifname)[0]["address"],
                    "sandbox": made.sandbox.path,
                },
            ],
            "ips": [{"interface": 1, "address": f"{address}/24", "gateway": gateway}],
            "routes": [{"dst": "0.0.0.0/0", "gw": gateway}],
        }

    def leave(self, sandbox: Sandbox) -> None:
        """The container is gone, and its network namespace with it.

        The end of a pair whose other end is in there shows when the kernel has taken the namespace apart.
        """
        end = f"vconfend{len(self._leaving)}"
        self.tool("ip", "link", "add", end, "type", "veth", "peer", "name", end, "netns", sandbox.namespace)
        self._leaving.append(end)
        netns.delete(sandbox.namespace)

    # Asking the plugin

    def config(self, at: Attachment | None = None, verb: str = "", version: str = "") -> dict[str, Any]:
        """The configuration that a runtime would hand the plugin."""
        version = version or self.version
        network = at.network if at else self.network()
        values = {**network.values, "hostPort": 20000 + (at.number if at else 0)}
        body: dict[str, Any] = render(dict(self.profile.conf), values)
        name = Path(self.subject.path).name
        if self.profile.kind == "ipam":
            body["ipam"] = {**body.get("ipam", {}), "type": name}
        body = {
            "cniVersion": version,
            "name": network.name,
            "type": self._upper if self.profile.kind == "ipam" else name,
            **body,
        }
        body.update(self.changes)
        if at is not None and at.runtime_config and verb in {"ADD", "CHECK", "DEL"}:
            body["runtimeConfig"] = at.runtime_config
        previous = self._previous(at, verb, version) if at else None
        if previous is not None:
            body["prevResult"] = previous
        return body

    _upper = "podnet-conform-upper"  # what an IPAM plugin sees as the plugin that delegates to it

    def _previous(self, at: Attachment, verb: str, version: str) -> dict[str, Any] | None:
        if verb == "ADD":
            return results.reshaped(at.before, version) if at.before else None
        if verb not in {"CHECK", "DEL"} or results.version_tuple(version) < (0, 4, 0):
            return None
        if at.result is None:
            return results.reshaped(at.before, version) if at.before else None
        result = results.converted(at.result, version)
        if self.profile.kind == "ipam":
            interface = {"name": at.ifname, "sandbox": at.sandbox.path}
            return {
                **result,
                "interfaces": [interface],
                "ips": [{**each, "interface": 0} for each in result.get("ips") or []],
            }
        return result

    def environment(self, verb: str, at: Attachment | None = None) -> dict[str, str]:
        """The CNI variables that a runtime sets for a verb."""
        env = {"CNI_COMMAND": verb}
        if verb != "VERSION":
            env["CNI_PATH"] = ":".join(self.cni_path)
        if at is not None:
            env |= {"CNI_CONTAINERID": at.sandbox.id, "CNI_NETNS": at.sandbox.path, "CNI_IFNAME": at.ifname}
        return env

    def run(
        self,
        verb: str,
        at: Attachment | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str | None] | None = None,
        stdin: bytes | Sequence[bytes] | None = None,
        version: str = "",
        title: str = "",
        keep_open: bool = False,
        timeout: float = 0,
    ) -> Exchange:
        """Execute the plugin once. ``env`` changes variables (``None`` takes one away), ``stdin`` replaces the
        configuration by bytes. The exchange is remembered as evidence; a plugin that does not end violates all.
        """
        variables: dict[str, str] = self.environment(verb, at)
        for key, value in (env or {}).items():
            variables.pop(key, None)
            if value is not None:
                variables[key] = value
        if stdin is None:
            body = self.config(at, verb, version) if config is None else config
            stdin = b"" if verb == "VERSION" and config is None else json.dumps(body).encode()
        label = title or f"{verb}{f' {at.sandbox.id} {at.ifname}' if at else ''}"
        limit = timeout or self.subject.timeout
        exchange = execute(self.subject.path, variables, stdin, timeout=limit, title=label, keep_open=keep_open)
        self.exchanges.append(exchange)
        if exchange.code is None:
            violated(f"{label}: the plugin was still running after {limit:g} s, and was killed")
        return exchange

    # Judging an answer

    def succeeded(self, exchange: Exchange, what: str = "") -> Exchange:
        """The requirement demands success."""
        if exchange.code != 0:
            violated(f"{what or exchange.title} failed: {told(exchange)}")
        return exchange

    def refused(self, exchange: Exchange, what: str, *codes: int) -> dict[str, Any]:
        """The requirement demands an error (of one of these codes); returns the error object, maybe empty."""
        if exchange.code == 0:
            violated(f"{what}: the plugin reports success, an error was due")
        error = error_of(exchange)
        if codes and error.get("code") not in codes:
            violated(f"{what}: error code {' or '.join(map(str, codes))} was due, found {told(exchange)}")
        return error

    def failed(self, exchange: Exchange, see: str) -> Exchange:
        """What is asked next supposes that this failed; that it must fail is another requirement."""
        if exchange.code == 0:
            not_applicable(f"{exchange.title}: the plugin reports success (see {see})")
        return exchange

    def require(self, condition: object, text: str) -> None:
        """Violated unless the condition holds."""
        if not condition:
            violated(text)

    def result_of(self, exchange: Exchange) -> dict[str, Any]:
        """The result on standard output."""
        try:
            result = json.loads(exchange.stdout)
        except ValueError as error:
            violated(f"{exchange.title}: standard output is no JSON document ({error}): {exchange.stdout[:200]!r}")
        if not isinstance(result, dict):
            violated(f"{exchange.title}: the result is no JSON object")
        return result

    # What a case needs before it comes to its point

    def add(self, at: Attachment | None = None, **options: Any) -> Attachment:
        """An ADD that is only the way to the point: where it fails, the case can not be judged."""
        at = at or self.attachment()
        exchange = self.run("ADD", at, **options)
        if exchange.code != 0:
            msg = f"the ADD that comes before failed: {told(exchange)}"
            raise NotMeasuredError(msg)
        try:
            at.result = json.loads(exchange.stdout)
        except ValueError:
            msg = "the ADD that comes before printed no JSON document"
            raise NotMeasuredError(msg) from None
        return at

    def needs(self, version: str, what: str) -> None:
        """Not applicable to a plugin whose newest version is older."""
        if results.version_tuple(self.version) < results.version_tuple(version):
            not_applicable(f"{what} came with {version}; the plugin announces up to {self.subject.newest}")

    def needs_pool(self) -> None:
        """Not applicable where the suite cannot choose how many addresses there are."""
        if not self.profile.pooled:
            not_applicable("the configuration has no {{subnet}}, so its pool of addresses cannot be made small")

    def needs_own_addresses(self) -> None:
        """Not applicable where the addresses are a delegate's doing: it would be blamed on the wrong plugin."""
        if not self.profile.delegates:
            return
        at = self.attachment(network=self.network("probe"))
        exchange = self.run("ADD", at, env={"CNI_PATH": "/run/conform/not-there"}, title="ADD without any delegate")
        if exchange.code != 0:
            not_applicable("the addresses come from a delegated plugin; judge that one")
        at.result = self.result_of(exchange)
        self.run("DEL", at, env={"CNI_PATH": "/run/conform/not-there"})

    def needs_creator(self) -> None:
        """Not applicable to a plugin that only adjusts an interface."""
        if not self.profile.creates:
            not_applicable(f"the plugin creates no interface, it adjusts {self.profile.ifname}")

    def delegate(self) -> Delegate:
        """Let the plugin delegate addresses to a plugin of the suite's own that remembers each call."""
        if not self.profile.delegates:
            not_applicable("the configuration delegates to no other plugin (no ipam.type)")
        made = Delegate(Path(WORK_DIR, "delegate"), self.network())
        self.cni_path.insert(0, str(made.folder))
        self.changes["ipam"] = {"type": _DELEGATE, "conform": {"known-only": "to the delegate"}}
        return made

    # Looking at the kernel

    def host(self) -> Snapshot:
        """The runtime's namespace, and the files that plugins keep about containers."""
        return observe(folders=("/run", "/var/lib/cni", "/var/lib/podnet"), skip=_SKIPPED, owns=self._is_state)

    def inside(self, sandbox: Sandbox) -> Snapshot:
        """A container's namespace."""
        return observe(sandbox.namespace)

    def _is_state(self, path: str, content: str) -> bool:
        """Whether a file is a plugin's record of one of our containers; logs and databases are not residue."""
        if path.endswith(_NOT_STATE):
            return False
        if "/log/" in path or content.startswith("SQLite format 3"):
            return False
        return any(identity in path or identity in content for identity in self.ids)

    def controlled(self, **options: Any) -> tuple[Snapshot, Attachment]:
        """As ``steady``, where a plain DEL is known to clean: what is left then is left by the special one."""
        before, control = self.steady(**options)
        self.add(control)
        self.succeeded(self.run("DEL", control, title="DEL, the plain case"), "the plain DEL (see D1b)")
        if self.residue(before):
            not_applicable("a plain DEL leaves something behind already (see D1b)")
        at = self.attachment(**options)
        return self.host(), at

    def steady(self, **options: Any) -> tuple[Snapshot, Attachment]:
        """An attachment to be made, and what the host holds before.

        A first container is attached and stays: what all attachments share (a bridge, chains, tables) is there then,
        so that only what belongs to the second can be residue.
        """
        self.add()
        at = self.attachment(**options)
        return self.host(), at

    def residue_now(self, before: Snapshot, *topics: str) -> list[str]:
        """What was not there before, at this moment."""
        return added(before, self.host(), *topics)

    def residue(self, before: Snapshot, *topics: str) -> list[str]:
        """What was not there before, after giving the kernel time to take deleted namespaces apart."""
        return self._settled(before, lambda now: added(before, now, *topics))

    def missing(self, before: Snapshot, *topics: str) -> list[str]:
        """What was there before and is not any more; without what the suite itself made."""
        gone = lost(before, self.host(), *topics)
        return [line for line in gone if "vconf" not in line]

    def _settled(self, before: Snapshot, changes: Any) -> list[str]:
        deadline = time.monotonic() + _TAKEN_APART_WITHIN
        while {name for _, name in socket.if_nameindex()}.intersection(self._leaving) and time.monotonic() < deadline:
            time.sleep(0.02)
        deadline = time.monotonic() + _SETTLES_WITHIN
        while True:
            left: list[str] = changes(self.host())
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)

    def clean(self, before: Snapshot, what: str) -> None:
        """The requirement demands that nothing is left of an attachment."""
        left = self.residue(before)
        if left:
            violated(f"{what}, and this is left: {listed(left)}")

    def interface(self, at: Attachment) -> dict[str, Any] | None:
        """The attachment's interface as the kernel has it, with addresses; ``None`` if it is not there."""
        rows = [row for row in ip_json(at.sandbox.namespace, "addr") if row["ifname"] == at.ifname]
        return rows[0] if rows else None

    def fill(self, network: Network, count: int) -> list[Attachment]:
        """Attach containers until the network has handed out ``count`` addresses."""
        return [self.add(self.attachment(network=network)) for _ in range(count)]


class Delegate:
    """The suite's own delegated plugin: what it shall answer, and what it was asked."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder = folder
        self.network = network
        folder.mkdir(parents=True)
        script = folder / _DELEGATE
        source = Path(__file__).with_name("delegate.py").read_text(encoding="utf-8")
        script.write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf-8")
        script.chmod(0o755)
        self._answers: dict[str, dict[str, Any]] = {}
        self.answer("DEL")

    def answer(self, verb: str, *, code: int = 0, stdout: str = "", stderr: str = "") -> None:
        """What to answer to a verb from now on (nothing, with exit code 0, unless told)."""
        self._answers[verb] = {"code": code, "stdout": stdout, "stderr": stderr}
        (self.folder / "answers.json").write_text(json.dumps(self._answers), encoding="utf-8")

    def fail(self, verb: str, code: int, msg: str) -> None:
        """Answer with an error object from now on."""
        error = {"cniVersion": "1.0.0", "code": code, "msg": msg, "details": "asked for by the conformance suite"}
        self.answer(verb, code=1, stdout=json.dumps(error))

    def hand_out(self, last_byte: int, version: str, **changes: Any) -> str:
        """Answer ADD with an address from now on; returns it."""
        values = self.network.values
        address = f"10.88.{self.network.number}.{last_byte}/24"
        body = {
            "ips": [{"address": address, "gateway": values["gateway"]}],
            "routes": [{"dst": "0.0.0.0/0"}],
            **changes,
        }
        self.answer("ADD", stdout=json.dumps(results.reshaped(body, version)))
        return address

    def calls(self, verb: str = "") -> list[dict[str, Any]]:
        """What it was asked so far, oldest first: ``verb``, ``env``, ``stdin``."""
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("call-*.json"))]
        return [call for call in found if verb in {"", call["verb"]}]

    def forget(self) -> None:
        """Forget all calls so far."""
        for path in self.folder.glob("call-*.json"):
            path.unlink()

    def remove(self) -> None:
        """Take the executable away."""
        shutil.rmtree(self.folder)


def error_of(exchange: Exchange) -> dict[str, Any]:
    """The error object on standard output; empty where there is none."""
    try:
        error = json.loads(exchange.stdout)
    except ValueError:
        return {}
    return error if isinstance(error, dict) else {}


def told(exchange: Exchange) -> str:
    """What a failed execution said, in one line."""
    error = error_of(exchange)
    if "msg" in error or "code" in error:
        details = f" ({error['details']})" if error.get("details") else ""
        return f"exit code {exchange.code}, code {error.get('code')}: {error.get('msg')}{details}"
    text = (exchange.stdout or exchange.stderr).strip()
    return f"exit code {exchange.code}, {text[:300]!r}" if text else f"exit code {exchange.code} and no output"


def listed(lines: Sequence[str], most: int = 6) -> str:
    """Some lines, as part of a sentence."""
    more = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more
