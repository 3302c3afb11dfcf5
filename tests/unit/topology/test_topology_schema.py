"""The JSON schema that editors use says the same as the loader, as far as a schema can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from podnet.topology.schema import json_schema

ROOT = Path(__file__).parents[3]
FILES = [*sorted((ROOT / "topologies").glob("*.yaml")), Path(__file__).parent / "full.yaml"]
HEAD: dict[str, Any] = {"name": "lab", "nodes": [{"name": "n1"}]}
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def test_it_is_a_schema_of_2020_12() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "podnet topology"
    jsonschema.Draft202012Validator.check_schema(schema)


def test_every_section_is_closed_and_every_key_described() -> None:
    schema = json_schema()
    for section in [schema, *schema["$defs"].values()]:
        assert section["additionalProperties"] is False
        assert section["description"]
        for key in section["properties"].values():
            assert key["description"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_it_accepts_topologies(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": "Lab"},
        {"name": "a" * 41},
        {"nodes": []},
        {"nodes": [{}]},
        {"nodes": [{"name": "n1", "subnett": "x"}]},
        {"nodes": [{"name": "n1", "subnet": None}]},
        {"nodes": [{"name": "n1", "labels": {"a": 1}}]},
        {"nodes": [{"name": "n1", "labels": {"a b": "c"}}]},
        {"nodes": [{"name": "n1", "sysctls": {"kernel.panic": 1}}]},
        {"nodes": [{"name": "n1", "routes": [{"via": "10.0.0.1"}]}]},
        {"nodes": [{"name": "n1", "addresses": ["10.0.0.1/24"]}]},
        {"networking": {"ipFamily": "ipv5"}},
        {"networking": {"fabric": "vlan"}},
        {"networking": {"vxlan": {"vni": 0}}},
        {"networking": {"ipip": {"port": 1}}},
        {"networking": {"podSubnet": "10.0.0.0"}},
        {"networking": {"mtu": 60}},
        {"networking": {"bridge": "eth0"}},
        {"networking": {"bridge": "a/b"}},
        {"underlay": {"routers": [{"name": "r", "subnets": ["a"]}]}},
        {"pods": [{"name": "web"}]},
        {"pods": [{"name": "web", "node": "n1", "replicas": 0}]},
        {"pods": [{"name": "web", "node": "n1", "containers": [{"name": "c", "command": "sh"}]}]},
        {"pods": [{"name": "web", "node": "n1", "containers": [{"name": "c", "command": []}]}]},
        {"expect": [{"from": "a", "to": "b"}]},
        {"expect": [{"from": "a", "to": "b", "icmp": False}]},
        {"expect": [{"from": "a", "to": "b", "icmp": True, "tcp": 80}]},
        {"expect": [{"from": "a", "to": "b", "tcp": 0}]},
        {"expect": [{"from": [], "to": "b", "tcp": 1}]},
        {"expect": [{"from": {}, "to": "b", "tcp": 1}]},
        {"foo": 1},
    ],
    ids=str,
)
def test_it_rejects_what_the_loader_rejects(change: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid(HEAD)
    assert not VALIDATOR.is_valid(HEAD | change)
