"""Configurations on disk: which file counts, what a list may say, and messages with file and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podnet.cni.runtime.conflist import ConflistError, load, parse, reread

LIST: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}


def write(path: Path, value: object) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def listed(**change: Any) -> bytes:
    return json.dumps(LIST | change).encode()


def refused(value: object, single: bool = False) -> str:
    data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    with pytest.raises(ConflistError) as caught:
        parse(data, "10-net.conflist", single=single)
    assert str(caught.value).startswith("10-net.conflist: ")
    return str(caught.value).removeprefix("10-net.conflist: ")


def test_c8_a_list() -> None:
    data = listed(
        plugins=[{"type": "bridge", "mtu": 1400},
                 {"type": "portmap", "Capabilities": {"portMappings": True, "x": False}}],
        disableCheck=True, disableGC="true", loadOnlyInlinedPlugins=True,
    )  # fmt: skip
    found = parse(data)
    assert (found.name, found.version, found.data) == ("net", "1.0.0", data)
    assert [plugin.type for plugin in found.plugins] == ["bridge", "portmap"]
    assert found.plugins[0].raw == {"type": "bridge", "mtu": 1400}
    assert (found.plugins[0].capabilities, found.plugins[1].capabilities) == ((), ("portMappings",))
    assert found.capabilities == {"portMappings"}
    assert (found.disable_check, found.disable_gc, found.load_only_inlined) == (True, True, True)


def test_c8_a_single_configuration_is_a_list_of_one() -> None:
    raw = {"cniVersion": "0.4.0", "Name": "net", "type": "bridge", "mtu": 1400}
    found = parse(json.dumps(raw).encode(), single=True)
    assert (found.name, found.version) == ("net", "0.4.0")
    assert [plugin.raw for plugin in found.plugins] == [raw]
    assert json.loads(found.data) == {"name": "net", "cniVersion": "0.4.0", "plugins": [raw]}
    assert parse(found.data).plugins == found.plugins


@pytest.mark.parametrize(
    ("version", "offered", "chosen"),
    [
        ("1.0.0", None, "1.0.0"),
        (None, None, "0.1.0"),
        ("0.4.0", ["1.0.0", "0.3.1"], "1.0.0"),
        ("1.1.0", ["0.4.0"], "1.1.0"),
        ("0.4.0", ["1.1.0", "2.0.0"], "1.1.0"),
        (None, ["0.3.1", "0.4.0"], "0.4.0"),
        ("2.0.0", ["1.0.0"], "1.0.0"),
        ("1.0.0", [], "1.0.0"),
        (None, ["2.0.0"], "0.1.0"),
    ],
)
def test_c8_the_highest_version_that_is_known(version: object, offered: object, chosen: str) -> None:
    value = {key: each for key, each in {"cniVersion": version, "cniVersions": offered}.items() if each is not None}
    base = {key: each for key, each in LIST.items() if key != "cniVersion"}
    assert parse(json.dumps(base | value).encode()).version == chosen


@pytest.mark.parametrize(("value", "flag"), [(True, True), (False, False), ("true", True), ("False", False)])
def test_c8_flags_are_booleans_or_strings(value: object, flag: bool) -> None:
    assert parse(listed(disableCheck=value)).disable_check is flag


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "error unmarshall configuration"),
        ("[]", "error unmarshall configuration: it must be an object"),
        ({}, "name is missing"),
        (LIST | {"name": 5}, "name is missing"),
        (LIST | {"name": "../x"}, "name is '../x'"),
        (LIST | {"cniVersion": 1}, "cniVersion must be a string"),
        (LIST | {"cniVersion": "x"}, 'invalid version "x"'),
        (LIST | {"cniVersion": "9.0.0"}, "incompatible CNI versions"),
        (LIST | {"cniVersions": "1.0.0"}, "cniVersions must be an array of strings"),
        (LIST | {"cniVersions": [1]}, "cniVersions must be an array of strings"),
        (LIST | {"cniVersions": ["x"]}, 'invalid version "x"'),
        (LIST | {"disableCheck": "yes"}, "disableCheck must be true or false"),
        (LIST | {"disableGC": 1}, "disableGC must be true or false"),
        (LIST | {"plugins": {}}, "plugins must be an array"),
        (LIST | {"plugins": []}, "plugins is empty"),
        (LIST | {"plugins": ["bridge"]}, "plugins[0] must be an object"),
        (LIST | {"plugins": [{"type": "a"}, {}]}, "plugins[1].type is missing"),
        (LIST | {"plugins": [{"type": "../sh"}]}, "plugins[0].type is '../sh'"),
        (LIST | {"plugins": [{"type": 1}]}, "plugins[0].type must be a string"),
        (LIST | {"plugins": [{"type": "a", "capabilities": {"x": 1}}]}, "plugins[0].capabilities.x must be a boolean"),
        ({"name": "n", "loadOnlyInlinedPlugins": True}, "loadOnlyInlinedPlugins is true, but there is no key plugins"),
    ],
)
def test_c8_what_is_wrong_with_a_list_names_the_key(value: object, message: str) -> None:
    assert refused(value).startswith(message)


@pytest.mark.parametrize(
    ("value", "message"),
    [({"name": "n"}, "type is missing"), ({"type": "a"}, "name is missing"), (LIST, "type is missing")],
)
def test_c8_what_is_wrong_with_a_single_configuration(value: object, message: str) -> None:
    assert refused(value, single=True).startswith(message)


def test_c8_plugins_beside_the_list(tmp_path: Path) -> None:
    file = write(tmp_path / "net.conflist", LIST)
    write(tmp_path / "net" / "20.conf", {"type": "second"})
    write(tmp_path / "net" / "10.conf", {"type": "first"})
    write(tmp_path / "net" / "ignored.conflist", LIST)
    write(tmp_path / "other" / "10.conf", {"type": "other"})
    found = load(file)
    assert [plugin.type for plugin in found.plugins] == ["bridge", "first", "second"]
    assert reread(found.data, "cache").plugins == found.plugins
    write(Path(file), LIST | {"loadOnlyInlinedPlugins": True})
    assert [plugin.type for plugin in load(file).plugins] == ["bridge"]


def test_c8_a_list_of_plugins_beside_it_only(tmp_path: Path) -> None:
    file = write(tmp_path / "net.conflist", {"cniVersion": "1.1.0", "name": "net"})
    with pytest.raises(ConflistError, match="no plugins"):
        load(file)
    wrong = write(tmp_path / "net" / "10.conf", {"typ": "first"})
    with pytest.raises(ConflistError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{wrong}: type is missing")


def test_5_2_the_first_file_of_a_directory(tmp_path: Path) -> None:
    write(tmp_path / "05-ignored.txt", "no JSON")
    write(tmp_path / ".10-hidden.tmp", "no JSON")
    (tmp_path / "01-folder.conf").mkdir()
    write(tmp_path / "20-b.conflist", LIST | {"name": "b"})
    write(tmp_path / "30-c.json", {"name": "c", "type": "x", "cniVersion": "0.4.0"})
    assert load(str(tmp_path)).name == "b"
    write(tmp_path / "10-a.conf", {"name": "a", "type": "x", "cniVersion": "0.4.0"})
    assert load(str(tmp_path)).name == "a"
    assert load(str(tmp_path)).source == str(tmp_path / "10-a.conf")


def test_a_network_by_name_and_lists_first(tmp_path: Path) -> None:
    write(tmp_path / "10-a.conf", {"name": "b", "type": "single", "cniVersion": "0.4.0"})
    write(tmp_path / "20-b.conflist", LIST | {"name": "b"})
    write(tmp_path / "30-broken.conflist", "{")
    assert [plugin.type for plugin in load(str(tmp_path), "b").plugins] == ["bridge"]
    with pytest.raises(ConflistError) as caught:
        load(str(tmp_path), "c")
    assert "no network c: there are b, b" in str(caught.value)
    assert "30-broken.conflist: error unmarshall" in str(caught.value)


def test_a_list_in_a_file_of_another_name(tmp_path: Path) -> None:
    assert load(write(tmp_path / "10-a.conf", LIST)).name == "net"
    assert load(write(tmp_path / "a", LIST)).name == "net"


@pytest.mark.parametrize("name", ["", "net"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConflistError, match="no network"):
        load(str(tmp_path), name)
    with pytest.raises(ConflistError, match="it cannot be read: No such file"):
        load(str(tmp_path / "gone.conflist"), name)


def test_a_file_with_another_network(tmp_path: Path) -> None:
    file = write(tmp_path / "a.conflist", LIST)
    with pytest.raises(ConflistError, match="it holds the network net, not other"):
        load(file, "other")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["bridge", "1.0.0", "true"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "Type", "capabilities", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["name", "cniVersion", "cniVersions", "plugins", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "type"]
)


@given(st.binary(max_size=30) | st.dictionaries(KEYS, VALUES).map(lambda each: json.dumps(LIST | each).encode()),
       st.booleans())  # fmt: skip
def test_any_bytes_are_a_list_or_a_conflist_error(data: bytes, single: bool) -> None:
    try:
        found = parse(data, "f", single=single)
    except ConflistError as error:
        message = str(error)
    else:
        message = "f: "
        assert found.name
    assert message.startswith("f: ")
