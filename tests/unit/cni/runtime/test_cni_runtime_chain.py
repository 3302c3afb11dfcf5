"""The chain: who is called in which order with what, and what is kept, as libcni does it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podnet.cni.runtime import cache, chain
from podnet.cni.runtime.cache import Container
from podnet.cni.runtime.chain import ChainError, CheckNotSupportedError, CollectError, Runtime
from podnet.cni.runtime.conflist import NetworkList, parse
from podnet.cni.runtime.invoke import PluginNotFoundError
from podnet.cni.spec import versions
from podnet.cni.spec.errors import CNIError

if TYPE_CHECKING:
    from conftest import FakePlugins

FIRST = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "mtu": 1400, "sandbox": "/run/netns/x"}]}
SECOND = FIRST | {"ips": [{"interface": 0, "address": "10.0.0.2/24"}]}
CONTAINER = Container("c1", "/run/netns/x", "eth0", (("IgnoreUnknown", "1"), ("K", "v")))
ONE = {"containerID": "c1", "ifname": "eth0"}


def answer(value: object) -> dict[str, Any]:
    return {"stdout": json.dumps(value)}


def failing(code: int, message: str = "m") -> dict[str, Any]:
    return {"stdout": json.dumps({"code": code, "msg": message}), "code": 1}


def listed(version: str = "1.1.0", **extra: Any) -> NetworkList:
    plugins = [{"type": "first", "mtu": 1400, "args": {"x": [1]}}, {"type": "second", "capabilities": {"mac": True}}]
    return parse(json.dumps({"cniVersion": version, "name": "net", "plugins": plugins, **extra}).encode(), "f.conflist")


@pytest.fixture
def pair(plugins: FakePlugins) -> FakePlugins:
    plugins.make("first", ADD=answer(FIRST))
    plugins.make("second", ADD=answer(SECOND))
    return plugins


def test_h1_add_in_order_with_the_result_before(pair: FakePlugins, runtime: Runtime) -> None:
    assert chain.add(runtime, listed(), CONTAINER) == SECOND
    assert pair.order == ["ADD first", "ADD second"]
    first, second = pair.calls
    assert first["config"] == {"type": "first", "mtu": 1400, "args": {"x": [1]}, "name": "net", "cniVersion": "1.1.0"}
    assert second["config"]["prevResult"] == FIRST
    assert first["environ"] == second["environ"] == {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K=v", "CNI_PATH": str(pair.folder),
    }  # fmt: skip


def test_h1_del_in_reverse_with_the_final_result(pair: FakePlugins, runtime: Runtime) -> None:
    chain.add(runtime, listed(), CONTAINER)
    chain.delete(runtime, listed(), CONTAINER)
    assert pair.order[2:] == ["DEL second", "DEL first"]
    assert [call["config"]["prevResult"] for call in pair.calls[2:]] == [SECOND, SECOND]
    assert cache.recall(runtime.cache_dir, "net", CONTAINER) is None


def test_d4_del_may_be_called_any_number_of_times(pair: FakePlugins, runtime: Runtime) -> None:
    for _ in range(2):
        chain.delete(runtime, listed(), replace(CONTAINER, netns=""))
    assert pair.order == ["DEL second", "DEL first"] * 2
    assert all("prevResult" not in call["config"] for call in pair.calls)
    assert pair.calls[0]["environ"]["CNI_NETNS"] == ""


def test_c4_no_result_for_del_before_0_4_0(pair: FakePlugins, runtime: Runtime) -> None:
    old = listed("0.3.1")
    chain.add(runtime, old, CONTAINER)
    chain.delete(runtime, old, CONTAINER)
    assert [call["config"].get("prevResult") for call in pair.calls[2:]] == [None, None]


def test_d2_del_does_without_a_result_that_cannot_be_read(pair: FakePlugins, runtime: Runtime) -> None:
    path = Path(cache.path_of(runtime.cache_dir, "net", CONTAINER))
    path.parent.mkdir(parents=True)
    for content in ("{", '{"cniVersion":"9.9.9"}', '{"cniVersion":"1.0.0","ips":[{"address":"x"}]}'):
        path.write_text(content, encoding="utf-8")
        chain.delete(runtime, listed(), CONTAINER)
        assert not path.exists()
    assert all("prevResult" not in call["config"] for call in pair.calls)


def test_c4_check_in_order_with_the_final_result(pair: FakePlugins, runtime: Runtime) -> None:
    chain.add(runtime, listed(), CONTAINER)
    assert chain.check(runtime, listed(), CONTAINER)
    assert pair.order[2:] == ["CHECK first", "CHECK second"]
    assert [call["config"]["prevResult"] for call in pair.calls[2:]] == [SECOND, SECOND]


def test_c8_disable_check(pair: FakePlugins, runtime: Runtime) -> None:
    assert not chain.check(runtime, listed(disableCheck=True), CONTAINER)
    assert pair.calls == []


def test_k_check_before_0_4_0(pair: FakePlugins, runtime: Runtime) -> None:
    with pytest.raises(CheckNotSupportedError, match=r"f.conflist: configuration version 0.3.1 has no CHECK"):
        chain.check(runtime, listed("0.3.1"), CONTAINER)
    assert pair.calls == []


@pytest.mark.parametrize(
    ("broken", "command", "order"),
    [
        ("first", "ADD", ["ADD first"]),
        ("second", "ADD", ["ADD first", "ADD second"]),
        ("first", "DEL", ["DEL second", "DEL first"]),
        ("second", "DEL", ["DEL second"]),
        ("first", "CHECK", ["CHECK first"]),
        ("first", "STATUS", ["STATUS first"]),
        ("second", "STATUS", ["STATUS first", "STATUS second"]),
    ],
)
def test_h1_the_first_error_ends_it_and_keeps_its_code(
    pair: FakePlugins, runtime: Runtime, broken: str, command: str, order: list[str]
) -> None:
    pair.make(broken, **{command: failing(11, "later")})
    calls = {
        "ADD": lambda: chain.add(runtime, listed(), CONTAINER),
        "DEL": lambda: chain.delete(runtime, listed(), CONTAINER),
        "CHECK": lambda: chain.check(runtime, listed(), CONTAINER),
        "STATUS": lambda: chain.status(runtime, listed()),
    }
    with pytest.raises(ChainError, match=f"plugin {broken} failed \\({command}\\): later") as caught:
        calls[command]()
    assert (caught.value.error.code, caught.value.plugin, caught.value.exit_code) == (11, broken, 1)
    assert pair.order == order
    assert cache.attachments(runtime.cache_dir) == []


def test_a_failed_del_keeps_the_result_for_the_next(pair: FakePlugins, runtime: Runtime) -> None:
    chain.add(runtime, listed(), CONTAINER)
    pair.make("first", DEL=failing(11))
    with pytest.raises(ChainError):
        chain.delete(runtime, listed(), CONTAINER)
    assert cache.recall(runtime.cache_dir, "net", CONTAINER) is not None


def test_h4_a_missing_plugin_is_noticed_before_anything_is_done(pair: FakePlugins, runtime: Runtime) -> None:
    (pair.folder / "second").unlink()
    with pytest.raises(PluginNotFoundError):
        chain.add(runtime, listed(), CONTAINER)
    assert pair.calls == []


@pytest.mark.parametrize(
    ("container", "message"),
    [
        (Container(""), "missing containerID"),
        (Container("../x"), "invalid characters in containerID"),
        (Container("c", ifname=""), "interface name is empty"),
        (Container("c", ifname="a/b"), "interface name contains /"),
    ],
)
def test_names_are_checked_before_anything_is_done(
    pair: FakePlugins, runtime: Runtime, container: Container, message: str
) -> None:
    for call in (chain.add, chain.delete, chain.check):
        with pytest.raises(CNIError, match=message):
            call(runtime, listed(), container)
    assert pair.calls == []


OFFERED = {"mac": "02:00:00:00:00:01", "ips": ["10.0.0.5"], "portMappings": [{"hostPort": 1}]}


@pytest.mark.parametrize(
    ("declared", "passed"),
    [
        ({}, None),
        ({"mac": True}, {"mac": OFFERED["mac"]}),
        ({"mac": True, "ips": True}, {"mac": OFFERED["mac"], "ips": OFFERED["ips"]}),
        ({"mac": False, "bandwidth": True}, None),
    ],
)
def test_c6_runtime_config_is_what_is_declared_and_offered(
    declared: dict[str, bool], passed: object, plugins: FakePlugins, runtime: Runtime
) -> None:
    plugins.make("p", ADD=answer(FIRST))
    network = parse(
        json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "p", "capabilities": declared}]}).encode()
    )
    chain.add(runtime, network, replace(CONTAINER, capability_args=OFFERED))
    chain.check(runtime, network, replace(CONTAINER, capability_args=OFFERED))
    chain.delete(runtime, network, replace(CONTAINER, capability_args=OFFERED))
    assert [call["config"].get("runtimeConfig") for call in plugins.calls] == [passed] * 3
    assert plugins.calls[0]["config"]["capabilities"] == declared


def test_p7_what_is_injected_has_no_rival_in_other_letters(pair: FakePlugins, runtime: Runtime) -> None:
    plugin = {"type": "first", "NAME": "x", "CNIVersion": "0.1.0", "PrevResult": {"x": 1}}
    network = parse(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]}).encode())
    chain.add(runtime, network, CONTAINER)
    assert pair.calls[0]["config"] == {
        "type": "first", "name": "net", "cniVersion": "1.0.0", "PrevResult": {"x": 1},
    }  # fmt: skip


@pytest.mark.parametrize("version", versions.SUPPORTED)
@pytest.mark.parametrize("own", [None, "0.2.0", "0.4.0", "1.1.0"])
def test_h8_results_become_what_the_list_is_written_in(
    version: str, own: str | None, plugins: FakePlugins, runtime: Runtime
) -> None:
    old = (own or version) in ("0.1.0", "0.2.0")
    value: dict[str, Any] = {"ip4": {"ip": "10.0.0.2/24"}} if old else {"ips": [{"address": "10.0.0.2/24"}]}
    plugins.make("p", ADD=answer(value | ({"cniVersion": own} if own else {})))
    network = parse(json.dumps({"cniVersion": version, "name": "n", "plugins": [{"type": "p"}]}).encode())
    result = chain.add(runtime, network, CONTAINER)
    assert result["cniVersion"] == version
    if version in ("0.1.0", "0.2.0"):
        assert result["ip4"] == {"ip": "10.0.0.2/24"}
    else:
        assert result["ips"][0]["address"] == "10.0.0.2/24"


@pytest.mark.parametrize("version", versions.SUPPORTED)
@pytest.mark.parametrize("output", ["{}", "null"])
def test_a_result_of_nothing(version: str, output: str, plugins: FakePlugins, runtime: Runtime) -> None:
    plugins.make("p", ADD={"stdout": output})
    network = parse(json.dumps({"cniVersion": version, "name": "n", "plugins": [{"type": "p"}]}).encode())
    assert chain.add(runtime, network, CONTAINER)["cniVersion"] == version


@pytest.mark.parametrize("output", ["", "nonsense", "[]", '{"cniVersion":"7.0.0"}', '{"ips":[{"address":"x"}]}'])
def test_p12_a_result_that_cannot_be_read(output: str, plugins: FakePlugins, runtime: Runtime) -> None:
    plugins.make("p", ADD={"stdout": output})
    network = parse(b'{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"p"}]}')
    with pytest.raises(ChainError) as caught:
        chain.add(runtime, network, CONTAINER)
    assert caught.value.error.code == 6
    assert cache.attachments(runtime.cache_dir) == []


def test_what_plugins_say_is_passed_on(pair: FakePlugins, runtime: Runtime, said: list[bytes]) -> None:
    pair.make("first", ADD=answer(FIRST) | {"stderr": "log\n"})
    chain.add(runtime, listed(), CONTAINER)
    assert b"".join(said) == b"log\n"


def test_the_cache_holds_what_was_used(pair: FakePlugins, runtime: Runtime) -> None:
    network = listed()
    container = replace(CONTAINER, capability_args=OFFERED)
    chain.add(runtime, network, container)
    assert cache.attachments(runtime.cache_dir) == [cache.Cached("net", container, network.data, SECOND)]


def test_c4_a_cached_result_is_converted_when_the_list_has_changed(pair: FakePlugins, runtime: Runtime) -> None:
    chain.add(runtime, listed("1.1.0"), CONTAINER)
    chain.check(runtime, listed("0.4.0"), CONTAINER)
    result = pair.calls[-1]["config"]["prevResult"]
    assert result["cniVersion"] == "0.4.0"
    assert result["ips"][0]["version"] == "4"
    assert "mtu" not in result["interfaces"][0]


def test_c9_gc_deletes_stale_ones_first_and_names_the_valid_ones(pair: FakePlugins, runtime: Runtime) -> None:
    other = parse(b'{"cniVersion":"1.1.0","name":"other","plugins":[{"type":"first"}]}')
    chain.add(runtime, other, Container("stale"))
    for name in ("c1", "stale", "c1-2"):
        chain.add(runtime, listed(), Container(name, f"/run/netns/{name}"))
    before = len(pair.calls)
    deleted = chain.collect(runtime, listed(), [("c1", "eth0"), ("c1-2", "eth0"), ("unknown", "net1")])
    assert [each.container.id for each in deleted] == ["stale"]
    assert pair.order[before:] == ["DEL second", "DEL first", "GC first", "GC second"]
    deletion, _, collection, _ = pair.calls[before:]
    assert deletion["environ"]["CNI_CONTAINERID"] == "stale"
    assert deletion["environ"]["CNI_NETNS"] == "/run/netns/stale"
    assert deletion["config"]["prevResult"] == SECOND
    valid = [ONE, {"containerID": "c1-2", "ifname": "eth0"}, {"containerID": "unknown", "ifname": "net1"}]
    assert collection["config"]["cni.dev/valid-attachments"] == valid
    assert collection["config"]["cni.dev/attachments"] == valid
    assert collection["environ"]["CNI_CONTAINERID"] == collection["environ"]["CNI_IFNAME"] == ""
    left = {(each.network, each.container.id) for each in cache.attachments(runtime.cache_dir)}
    assert left == {("net", "c1"), ("net", "c1-2"), ("other", "stale")}


def test_g3_an_empty_list_is_sent_as_such(pair: FakePlugins, runtime: Runtime) -> None:
    chain.collect(runtime, listed(), [])
    assert [call["config"]["cni.dev/valid-attachments"] for call in pair.calls] == [[], []]


def test_d7_gc_deletes_with_the_configuration_of_then(pair: FakePlugins, runtime: Runtime) -> None:
    chain.add(runtime, listed(), CONTAINER)
    now = parse(b'{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"second"}]}')
    chain.collect(runtime, now, [])
    assert pair.order[2:] == ["DEL second", "DEL first", "GC second"]


def test_gc_takes_todays_configuration_where_that_of_then_is_lost(pair: FakePlugins, runtime: Runtime) -> None:
    cache.remember(runtime.cache_dir, "net", CONTAINER, b'{"name":"net"}', SECOND)
    chain.collect(runtime, listed(), [])
    assert pair.order[:2] == ["DEL second", "DEL first"]


def test_gc_before_1_1_0_is_del_only(pair: FakePlugins, runtime: Runtime) -> None:
    chain.add(runtime, listed("1.0.0"), CONTAINER)
    chain.collect(runtime, listed("1.0.0"), [])
    assert pair.order[2:] == ["DEL second", "DEL first"]


def test_c8_disable_gc(pair: FakePlugins, runtime: Runtime) -> None:
    chain.add(runtime, listed(), CONTAINER)
    assert chain.collect(runtime, listed(disableGC=True), []) == []
    assert len(pair.calls) == 2


def test_g4_gc_goes_on_after_errors_and_reports_them_all(pair: FakePlugins, runtime: Runtime) -> None:
    for name in ("a", "b"):
        chain.add(runtime, listed(), Container(name))
    pair.make("second", DEL=failing(7, "stuck"), GC=failing(11, "busy"))
    with pytest.raises(CollectError) as caught:
        chain.collect(runtime, listed(), [])
    assert [str(error) for error in caught.value.errors] == [
        "plugin second failed (DEL): stuck",
        "plugin second failed (DEL): stuck",
        "plugin second failed (GC): busy",
    ]
    assert pair.order[4:] == ["DEL second", "DEL second", "GC first", "GC second"]
    (pair.folder / "first").unlink()
    with pytest.raises(CollectError, match="failed to find plugin"):
        chain.collect(runtime, listed(), [("a", "eth0"), ("b", "eth0")])


def test_s_status_asks_all(pair: FakePlugins, runtime: Runtime) -> None:
    assert chain.status(runtime, listed())
    assert pair.order == ["STATUS first", "STATUS second"]
    assert pair.calls[0]["config"] == {
        "type": "first", "mtu": 1400, "args": {"x": [1]}, "name": "net", "cniVersion": "1.1.0",
    }  # fmt: skip
    assert not chain.status(runtime, listed("1.0.0"))
    assert len(pair.calls) == 2


@pytest.mark.parametrize(
    ("reply", "supported"),
    [
        (answer({"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.1.0"]}), ("0.4.0", "1.1.0")),
        (answer({"cniVersion": "0.2.0"}), ("0.1.0", "0.2.0")),
        (failing(4, "unknown CNI_COMMAND: VERSION"), ("0.1.0",)),
    ],
)
def test_v1_v3_versions(
    reply: dict[str, Any], supported: tuple[str, ...], plugins: FakePlugins, runtime: Runtime
) -> None:
    path = plugins.make("p", VERSION=reply)
    network = parse(b'{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"p"}]}')
    found = chain.supported_versions(runtime, network)
    assert found == [chain.PluginVersions("p", str(path), supported, "1.1.0" in supported)]
    assert plugins.calls[0]["environ"] == {
        "CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy",
    }  # fmt: skip
    assert plugins.calls[0]["config"] == {"cniVersion": "1.1.0"}


@pytest.mark.parametrize("reply", [answer({}), answer({"cniVersion": "1.0.0"}), {"stdout": "x"}, failing(7)])
def test_v1_an_answer_that_is_none(reply: dict[str, Any], plugins: FakePlugins, runtime: Runtime) -> None:
    plugins.make("p", VERSION=reply)
    with pytest.raises(ChainError, match=r"plugin p failed \(VERSION\)"):
        chain.supported_versions(runtime, parse(b'{"name":"n","plugins":[{"type":"p"}]}'))


def test_variables_of_our_own_environment_do_not_reach_the_plugin(
    pair: FakePlugins, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNI_ARGS", "X=1")
    monkeypatch.setenv("CNI_COMMAND", "DEL")
    chain.add(runtime, listed(), Container("c1", "/x"))
    assert (pair.calls[0]["environ"]["CNI_ARGS"], pair.calls[0]["command"]) == ("", "ADD")
    assert os.environ["CNI_COMMAND"] == "DEL"
