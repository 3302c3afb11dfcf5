"""How a plugin is configured to be judged: built in, or from a file with placeholders."""

from __future__ import annotations

import json

import pytest

from podnet.conform.profiles import PROFILES, choose, render
from podnet.errors import UsageError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bridge", "interface"),
        ("ptp", "interface"),
        ("host-local", "ipam"),
        ("portmap", "chained"),
        ("podnet", "interface"),
    ],
)
def test_a_usual_plugin_is_known_by_its_name(name: str, kind: str) -> None:
    assert choose(name).kind == kind


def test_an_unknown_plugin_needs_a_configuration() -> None:
    with pytest.raises(UsageError, match=r"no built-in profile for 'own'.*--conf FILE"):
        choose("own")


@pytest.mark.parametrize(
    ("conf", "kind", "expected"),
    [
        ({"subnet": "{{subnet}}"}, "", "interface"),
        ({"ipam": {"type": "own"}}, "", "ipam"),
        ({"ipam": {"type": "host-local"}}, "", "interface"),
        ({"prevResult": {}}, "", "chained"),
        ({"ipam": {"type": "own"}}, "interface", "interface"),
    ],
)
def test_the_kind_follows_from_the_configuration(conf: dict[str, object], kind: str, expected: str) -> None:
    assert choose("own", conf=json.dumps(conf), kind=kind).kind == expected


def test_what_the_suite_sets_is_taken_out_of_the_file() -> None:
    conf = {"cniVersion": "0.4.0", "name": "n", "type": "x", "mtu": 1400, "runtimeConfig": {"mac": "{{hostPort}}"}}
    profile = choose("own", conf=json.dumps(conf))
    assert profile.conf == {"mtu": 1400}
    assert profile.runtime_config == {"mac": "{{hostPort}}"}


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "must be a JSON object, found list"),
        ('{"plugins": []}', "a list of plugins"),
        ('{"a": "{{sub}}"}', "unknown placeholder {{sub}}; there are: bridge"),
    ],
)
def test_a_wrong_configuration_is_explained(conf: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose("own", conf=conf)
    assert message in str(caught.value)


def test_placeholders() -> None:
    values = {"subnet": "10.0.0.0/30", "hostPort": 20001}
    given = {"a": ["{{subnet}}", {"b": "{{hostPort}}"}], "c": "net-{{subnet}}", "d": 1}
    assert render(given, values) == {"a": ["10.0.0.0/30", {"b": 20001}], "c": "net-10.0.0.0/30", "d": 1}


def test_built_in_profiles_use_known_placeholders_only() -> None:
    values = dict.fromkeys(["name", "subnet", "gateway", "dataDir", "bridge", "uplink", "hostPort"], "x")
    for profile in PROFILES.values():
        render(dict(profile.conf), values)
        render(dict(profile.runtime_config), values)
