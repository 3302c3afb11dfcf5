"""The process: exit code, standard output, environment variables, and the order in which they are checked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from podnet.conform.case import told
from podnet.conform.model import INTERFACE, NotMeasuredError, not_applicable, violated
from podnet.conform.sections.table import Table

if TYPE_CHECKING:
    from podnet.conform.case import Case

__all__ = ["TABLE"]

TABLE = Table("Process, environment, input and output")
row = TABLE.row

_KUBERNETES = (
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=0123456789ab;"
    "K8S_POD_UID=4ed3d1f0-9b1c-4bb4-9b62-0f3f6c0e4a3b"
)


@row("P1a", "MUST", "Exits with a code other than 0 on failure", "SPEC section 2, Errors")
def fails_with_exit_code(case: Case) -> str:
    exchange = case.run("NOPE", case.attachment())
    case.refused(exchange, "an unknown CNI_COMMAND")
    return told(exchange)


@row(
    "P1b", "SHOULD", "Prints an error object with a numeric code and a msg on standard output", "SPEC section 5, Error"
)
def prints_error_object(case: Case) -> str:
    exchange = case.run("NOPE", case.attachment())
    case.refused(exchange, "an unknown CNI_COMMAND")
    try:
        error = json.loads(exchange.stdout)
    except ValueError:
        violated(f"standard output is no JSON document: {exchange.stdout[:200]!r} (stderr: {exchange.stderr[:200]!r})")
    case.require(isinstance(error, dict), f"the error is no object: {exchange.stdout[:200]!r}")
    case.require(isinstance(error.get("code"), int), f"code is no number: {error.get('code')!r}")
    case.require(isinstance(error.get("msg"), str) and error["msg"], f"msg is no text: {error.get('msg')!r}")
    return exchange.stdout.strip()[:200]


@row("P1c", "SHOULD", "The error object holds cniVersion", "SPEC section 5, Error")
def error_holds_version(case: Case) -> None:
    exchange = case.run("NOPE", case.attachment())
    error = case.refused(exchange, "an unknown CNI_COMMAND")
    case.require(isinstance(error.get("cniVersion"), str), f"no cniVersion in {exchange.stdout.strip()[:200]!r}")


@row("P2", "MUST", "A successful ADD prints one JSON object on standard output and nothing else", "SPEC section 5")
def only_json(case: Case) -> None:
    exchange = case.run("ADD", case.attachment())
    if exchange.code != 0:
        msg = f"the ADD failed: {told(exchange)}"
        raise NotMeasuredError(msg)
    case.result_of(exchange)


@row("P3", "library", "A successful DEL prints nothing on standard output", "libcni ignores it; DEL has no result type")
def silent_delete(case: Case) -> None:
    at = case.add()
    exchange = case.run("DEL", at)
    if exchange.code != 0:
        msg = f"the DEL failed: {told(exchange)}"
        raise NotMeasuredError(msg)
    case.require(not exchange.stdout.strip(), f"found {exchange.stdout[:200]!r}")


@row("P4a", "MUST", "Reads the configuration to its end, also where it arrives in pieces", "SPEC section 2, ADD, Input")
def reads_all(case: Case) -> None:
    at = case.attachment()
    text = json.dumps(case.config(at, "ADD")).encode()
    middle = len(text) // 2
    case.succeeded(case.run("ADD", at, stdin=(text[:middle], text[middle:]), title="ADD, configuration in two pieces"))


@row("P4b", "library", "VERSION answers without waiting for the end of standard input", "skel: VERSION reads no input")
def version_does_not_wait(case: Case) -> None:
    exchange = case.run("VERSION", keep_open=True, timeout=5, title="VERSION, standard input left open")
    case.succeeded(exchange)


@row(
    "P6a",
    "MUST",
    "Ignores what it does not understand in args",
    "CONVENTIONS, args in network config: plugins that don't understand that data should just ignore it",
)
def ignores_args(case: Case) -> None:
    at = case.attachment()
    extra = {"args": {"cni": {"labels": [{"key": "app", "value": "web"}]}, "example.org": {"x": 1}}}
    case.succeeded(case.run("ADD", at, config={**case.config(at, "ADD"), **extra}), "ADD with unknown args")


@row(
    "P6b",
    "library",
    "Accepts the runtime's own keys: cni.dev/..., runtimeConfig, capabilities",
    "SPEC section 1, libcni",
)
def accepts_runtime_keys(case: Case) -> None:
    at = case.attachment()
    body = case.config(at, "ADD")
    body["cni.dev/example"] = {"x": 1}
    body["capabilities"] = {**body.get("capabilities", {}), "conform.example": True}
    body["runtimeConfig"] = {**body.get("runtimeConfig", {}), "conform.example": ["x"]}
    case.succeeded(case.run("ADD", at, config=body), "ADD with the runtime's own keys")


@row("P6c", "MUST", "Refuses an unknown key with code 2 that names it, or accepts it", "SPEC section 1; error code 2")
def unknown_key(case: Case) -> str:
    at = case.attachment()
    exchange = case.run("ADD", at, config={**case.config(at, "ADD"), "conformUnknown": "x"}, title="ADD, unknown key")
    if exchange.code == 0:
        return "accepted"
    error = case.refused(exchange, "an unknown key", 2)
    case.require("conformUnknown" in error.get("msg", ""), f"the message does not name the key: {told(exchange)}")
    return "refused with code 2"


def _capitalised(value: object) -> object:
    """Keys as Go programs write them that have no json tags; keys of maps (sysctl names) are left alone."""
    if isinstance(value, dict):
        return {
            key[:1].upper() + key[1:] if key.isalnum() and key != "prevResult" else key: each
            if key == "prevResult"
            else _capitalised(each)
            for key, each in value.items()
        }
    return [_capitalised(each) for each in value] if isinstance(value, list) else value


@row(
    "P7",
    "library",
    "Matches the keys of the configuration without regard to case",
    "Go's encoding/json; containerd sends HostPort, ContainerPort, IngressRate",
)
def keys_ignore_case(case: Case) -> None:
    plain = case.attachment()
    expected = case.add(plain).result or {}
    at = case.attachment(network=case.network("second"))
    body = _capitalised(case.config(at, "ADD"))
    assert isinstance(body, dict)  # noqa: S101 - it was one
    before = case.host()
    exchange = case.succeeded(case.run("ADD", at, config=body, title="ADD, keys capitalised"))
    result = case.result_of(exchange)
    case.require(
        result.get("cniVersion") == case.version,
        f"'CniVersion' was not understood: the result's cniVersion is {result.get('cniVersion')!r}",
    )
    same = {key: len(expected.get(key) or []) for key in ("interfaces", "ips", "routes")}
    found = {key: len(result.get(key) or []) for key in same}
    case.require(found == same, f"the result holds {found}, with the keys in lower case {same}")
    if at.runtime_config:
        made = {line.split(": ")[0] for line in case.residue_now(before, "firewall", "shaping")}
        case.require(made, "the capitalised runtimeConfig made no rule and no shaping")


@row("P11", "library", "Ignores unknown environment variables, such as TRACEPARENT", "libcni sets TRACEPARENT")
def foreign_environment(case: Case) -> None:
    extra = {"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "CNI_CONFORM": "x"}
    case.succeeded(case.run("ADD", case.attachment(), env=extra))


@row("P10", "library", "Without CNI_COMMAND: says what it is on standard error, nothing on standard output", "skel")
def about(case: Case) -> str:
    exchange = case.run("VERSION", env={"CNI_COMMAND": None}, title="no CNI_COMMAND")
    case.require(exchange.code == 0, f"exit code 0 was due: {told(exchange)}")
    case.require(not exchange.stdout, f"standard output holds {exchange.stdout[:200]!r}")
    case.require(exchange.stderr.strip(), "standard error is empty")
    return exchange.stderr.strip()[:200]


@row("N1a", "MUST", "ADD without CNI_CONTAINERID fails with code 4 and names it", "SPEC section 2, ADD; error code 4")
def no_container(case: Case) -> None:
    _missing(case, "CNI_CONTAINERID")


@row("N1b", "MUST", "ADD without CNI_NETNS fails with code 4 and names it", "SPEC section 2, ADD; error code 4")
def no_netns(case: Case) -> None:
    _missing(case, "CNI_NETNS")


@row("N1c", "MUST", "ADD without CNI_IFNAME fails with code 4 and names it", "SPEC section 2, ADD; error code 4")
def no_ifname(case: Case) -> None:
    _missing(case, "CNI_IFNAME")


def _words(error: dict[str, Any]) -> str:
    return f"{error.get('msg')} {error.get('details')}"


def _missing(case: Case, name: str) -> None:
    exchange = case.run("ADD", case.attachment(), env={name: None}, title=f"ADD without {name}")
    error = case.refused(exchange, f"ADD without {name}", 4)
    case.require(name in _words(error), f"the message does not name {name}: {told(exchange)}")


@row("N1d", "library", "Several missing variables are all named at once", "skel")
def several_missing(case: Case) -> None:
    exchange = case.run("ADD", case.attachment(), env={"CNI_NETNS": None, "CNI_IFNAME": None}, title="ADD, two missing")
    error = case.refused(exchange, "ADD without CNI_NETNS and CNI_IFNAME", 4)
    both = all(name in _words(error) for name in ("CNI_NETNS", "CNI_IFNAME"))
    case.require(both, f"not both are named: {told(exchange)}")


@row("N1e", "MUST", "DEL does without CNI_NETNS", "SPEC section 2, DEL: optional")
def delete_without_netns(case: Case) -> None:
    exchange = case.run("DEL", case.attachment(), env={"CNI_NETNS": None}, title="DEL without CNI_NETNS")
    case.succeeded(exchange)


@row("N2a", "MUST", "An invalid CNI_CONTAINERID fails with code 4", "SPEC section 2, Parameters; error code 4")
def invalid_container(case: Case) -> None:
    at = case.attachment()
    for bad in ("../escape", "-leading", "white space", "semi;colon"):
        exchange = case.run("ADD", at, env={"CNI_CONTAINERID": bad}, title=f"ADD, container ID {bad!r}")
        case.refused(exchange, f"the container ID {bad!r}", 4)


@row("N2b", "MUST", "The message about an invalid CNI_CONTAINERID names the variable", "SPEC section 5, error code 4")
def invalid_container_named(case: Case) -> None:
    exchange = case.run("ADD", case.attachment(), env={"CNI_CONTAINERID": "../escape"})
    error = case.refused(exchange, "the container ID '../escape'", 4)
    case.require("CNI_CONTAINERID" in _words(error), f"found {told(exchange)}")


@row(
    "N3a", "MUST", "A CNI_IFNAME that the kernel cannot have is an error", "SPEC section 2, CNI_IFNAME", kinds=INTERFACE
)
def invalid_ifname(case: Case) -> None:
    case.needs_creator()
    at = case.attachment()
    for bad in ("sixteen-letters-", "..", "a/b", "white space"):
        exchange = case.run("ADD", at, env={"CNI_IFNAME": bad}, title=f"ADD, interface name {bad!r}")
        case.refused(exchange, f"the interface name {bad!r}")


@row("N3b", "library", "A CNI_IFNAME that the kernel cannot have fails with code 4", "skel")
def invalid_ifname_code(case: Case) -> None:
    at = case.attachment()
    for bad in ("sixteen-letters-", ".", "..", "a/b", "a:b", "white space"):
        exchange = case.run("ADD", at, env={"CNI_IFNAME": bad}, title=f"ADD, interface name {bad!r}")
        case.refused(exchange, f"the interface name {bad!r}", 4)


@row("N4", "MUST", "An unknown CNI_COMMAND fails with code 4 and is named", "SPEC section 5, error code 4")
def unknown_command(case: Case) -> None:
    exchange = case.run("NOPE", case.attachment())
    error = case.refused(exchange, "an unknown CNI_COMMAND", 4)
    case.require("CNI_COMMAND" in _words(error), f"the message does not name CNI_COMMAND: {told(exchange)}")


@row("N5", "library", "Takes CNI_ARGS as containerd sends it (IgnoreUnknown=1;K8S_POD_NAME=...)", "containerd, CRI-O")
def kubernetes_args(case: Case) -> None:
    case.succeeded(
        case.run("ADD", case.attachment(), env={"CNI_ARGS": _KUBERNETES}, title="ADD, CNI_ARGS of Kubernetes")
    )


@row(
    "N6",
    "practice",
    "CNI_NETNS that is the plugin's own namespace is an error",
    "the interface would be the machine's; later releases of skel answer code 8",
    kinds=INTERFACE,
)
def own_namespace(case: Case) -> None:
    case.needs_creator()
    case.add()
    at = case.attachment()
    exchange = case.run("ADD", at, env={"CNI_NETNS": "/proc/1/ns/net"}, title="ADD into the runtime's own namespace")
    case.refused(exchange, "CNI_NETNS is the runtime's own namespace")


@row(
    "P5", "MUST", "Touches no namespace but CNI_NETNS and the runtime's", "SPEC section 2, Parameters", kinds=INTERFACE
)
def other_namespaces(case: Case) -> None:
    case.needs_creator()
    other = case.sandbox()
    before = case.inside(other)
    at = case.add()
    case.require(case.interface(at), f"{at.ifname} is not in the namespace that CNI_NETNS names")
    if case.run("DEL", at).code is None:
        not_applicable("DEL did not end")
    after = case.inside(other)
    case.require(after == before, f"another container's namespace changed: {sorted(after.lines() ^ before.lines())}")


@row("O1", "library", "An invalid environment is reported before an invalid configuration", "skel: order of checks")
def environment_first(case: Case) -> None:
    exchange = case.run("ADD", case.attachment(), env={"CNI_IFNAME": None}, stdin=b"{", title="ADD, both wrong")
    case.refused(exchange, "no CNI_IFNAME and no JSON", 4)


@row("O2", "library", "A missing name is reported before an unsupported cniVersion", "skel: order of checks")
def name_before_version(case: Case) -> None:
    at = case.attachment()
    body = {**case.config(at, "ADD"), "cniVersion": "9.9.9"}
    del body["name"]
    case.refused(case.run("ADD", at, config=body, title="ADD, no name, version 9.9.9"), "no name, version 9.9.9", 7)
