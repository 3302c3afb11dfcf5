"""The results cache: libcni's file format, byte for byte where it matters, and nothing half-written."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from podnet.cni.runtime import cache
from podnet.cni.runtime.cache import Cached, CacheError, Container

CONTAINER = Container(
    "c1", "/run/netns/x", "eth0", (("IgnoreUnknown", "1"), ("K", "v")), {"portMappings": [{"hostPort": 1}]}
)
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]}

# As libcni (1.3.0) writes it: the struct's order, base64 of the list, omitempty.
BY_LIBCNI = (
    '{"kind":"cniCacheV1","containerId":"c1","config":"eyJuYW1lIjoibmV0In0=","ifName":"eth0","networkName":"net",'
    '"netns":"/run/netns/x","cniArgs":[["IgnoreUnknown","1"],["K","v"]],'
    '"capabilityArgs":{"portMappings":[{"hostPort":1}]},'
    '"result":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}}'
)


def test_the_file_is_libcnis(tmp_path: Path) -> None:
    cache.remember(str(tmp_path), "net", CONTAINER, b'{"name":"net"}', RESULT)
    file = tmp_path / "results" / "net-c1-eth0"
    assert file.read_text(encoding="utf-8") == BY_LIBCNI
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["net-c1-eth0", "results"]


def test_what_is_empty_is_left_out(tmp_path: Path) -> None:
    cache.remember(str(tmp_path), "net", Container("c1"), b"", {})
    assert json.loads((tmp_path / "results" / "net-c1-eth0").read_bytes()) == {
        "kind": "cniCacheV1", "containerId": "c1", "config": "", "ifName": "eth0", "networkName": "net", "result": {},
    }  # fmt: skip


def test_libcnis_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "net-c1-eth0").write_text(BY_LIBCNI, encoding="utf-8")
    expected = Cached("net", CONTAINER, b'{"name":"net"}', RESULT)
    assert cache.recall(str(tmp_path), "net", Container("c1")) == expected
    assert cache.attachments(str(tmp_path)) == [expected]


@pytest.mark.parametrize(
    ("interfaces", "netns"),
    [
        (
            [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}, {"name": "eth1", "sandbox": "/y"}],
            "/run/netns/x",
        ),
        ([{"name": "cni0"}], ""),
        ("nonsense", ""),
    ],
)
def test_before_libcni_kept_the_namespace_the_result_has_it(tmp_path: Path, interfaces: object, netns: str) -> None:
    """As libcni 1.1 writes it, which is in containerd 1.6 and podman 4."""
    file = json.loads(BY_LIBCNI)
    del file["netns"]
    file["result"]["interfaces"] = interfaces
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "net-c1-eth0").write_text(json.dumps(file), encoding="utf-8")
    assert [each.container.netns for each in cache.attachments(str(tmp_path))] == [netns]


def test_a_file_of_older_times_is_the_bare_result(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "net-c1-eth0").write_text(json.dumps(RESULT), encoding="utf-8")
    assert cache.recall(str(tmp_path), "net", CONTAINER) == Cached("net", CONTAINER, b"", RESULT)
    assert cache.attachments(str(tmp_path)) == []


def test_again_and_away(tmp_path: Path) -> None:
    folder = str(tmp_path / "new")
    assert cache.recall(folder, "net", CONTAINER) is None
    assert cache.attachments(folder) == []
    cache.forget(folder, "net", CONTAINER)
    for address in ("10.0.0.2/24", "10.0.0.3/24"):
        cache.remember(folder, "net", CONTAINER, b"", {"ips": [{"address": address}]})
        found = cache.recall(folder, "net", CONTAINER)
        assert found is not None
        assert found.result == {"ips": [{"address": address}]}
    cache.forget(folder, "net", CONTAINER)
    assert cache.recall(folder, "net", CONTAINER) is None


def test_attachments_of_a_network_or_a_container(tmp_path: Path) -> None:
    for network, container in (("a", "c1"), ("a", "c2"), ("a-c1", "c2")):
        cache.remember(str(tmp_path), network, Container(container), b"", {})
    results = tmp_path / "results"
    (results / "broken").write_text("{", encoding="utf-8")
    (results / "other").write_text(json.dumps({"kind": "other"}), encoding="utf-8")
    (results / "folder").mkdir()

    def found(network: str = "", container_id: str = "") -> list[tuple[str, str]]:
        return [(each.network, each.container.id) for each in cache.attachments(str(tmp_path), network, container_id)]

    assert found() == [("a-c1", "c2"), ("a", "c1"), ("a", "c2")]
    assert found("a") == [("a", "c1"), ("a", "c2")]
    assert found(container_id="c1") == [("a", "c1")]


@pytest.mark.parametrize("content", ["{", "[]", '{"kind":"cniCacheV1","containerId":5}'])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "results" / "net-c1-eth0"
    file.parent.mkdir()
    file.write_text(content, encoding="utf-8")
    with pytest.raises(CacheError) as caught:
        cache.recall(str(tmp_path), "net", CONTAINER)
    assert str(caught.value).startswith(f"{file}: ")


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way", encoding="utf-8")
    with pytest.raises(CacheError, match="the result cannot be kept"):
        cache.remember(str(tmp_path), "net", CONTAINER, b"", RESULT)
    (tmp_path / "results").unlink()
    (tmp_path / "results" / "net-c1-eth0").mkdir(parents=True)
    with pytest.raises(CacheError, match="the result cannot be kept"):
        cache.remember(str(tmp_path), "net", CONTAINER, b"", RESULT)
    with pytest.raises(CacheError, match="the kept result cannot be read"):
        cache.recall(str(tmp_path), "net", CONTAINER)
    with pytest.raises(CacheError, match="the kept result cannot be removed"):
        cache.forget(str(tmp_path), "net", CONTAINER)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["net-c1-eth0", "results"]


def test_a_configuration_that_is_no_base64_is_lost_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "results" / "net-c1-eth0"
    file.parent.mkdir()
    value = json.loads(BY_LIBCNI)
    file.write_text(json.dumps(value | {"config": "*"}), encoding="utf-8")
    found = cache.recall(str(tmp_path), "net", CONTAINER)
    assert found == Cached("net", CONTAINER, b"", RESULT)
    assert base64.b64decode(value["config"]) == b'{"name":"net"}'
