"""Capabilities: the table that doctor prints, and `require`, which `up` calls before it touches anything."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from podnet.errors import CapabilityError, KernelError
from podnet.kernel import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.kernel.trials import Finding


def finds(found: str, detail: str = "") -> Callable[[], Finding]:
    return lambda: (found, detail)


def fails(error: Exception) -> Callable[[], Finding]:
    def test() -> Finding:
        raise error

    return test


def row(name: str, test: Callable[[], Finding], *, required: bool = False) -> capabilities._Row:
    return capabilities._Row(name, f"use of {name}", test, f"get {name}", required)


def test_names_are_unique_and_every_row_says_what_for_and_how_to_get_it() -> None:
    rows = capabilities._ROWS
    assert len({each.name for each in rows}) == len(rows)
    assert all(each.needed_for and each.remedy for each in rows)


@pytest.mark.parametrize(
    ("release", "found"),
    [
        ("6.1.0-18-amd64", "yes"),
        ("6.18.44-cloud", "yes"),
        ("5.18.0", "yes"),
        ("7.0-rc1", "yes"),
        ("10.0.1+", "yes"),
        ("5.17.9", "no"),
        ("5.10.0-28-amd64", "no"),
        ("4.19.0", "no"),
    ],
)
def test_kernel_is_new_enough(monkeypatch: pytest.MonkeyPatch, release: str, found: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert capabilities._kernel() == (found, release)


def test_require_names_all_that_is_missing_with_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (row("veth", finds("no", "gone")), row("bridge", finds("yes")), row("ipvs", finds("no", "absent")))
    monkeypatch.setattr(capabilities, "_ROWS", rows)
    with pytest.raises(CapabilityError) as caught:
        capabilities.require({"veth", "bridge", "ipvs"})
    assert str(caught.value).splitlines()[1:] == [
        "  veth, for use of veth: gone. Get it: get veth",
        "  ipvs, for use of ipvs: absent. Get it: get ipvs",
    ]
    assert caught.value.exit_code == 3


def test_require_looks_at_nothing_but_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (row("veth", finds("yes")), row("ipvs", fails(AssertionError("was looked at")), required=True))
    monkeypatch.setattr(capabilities, "_ROWS", rows)
    capabilities.require({"veth"})


def test_require_without_names_means_all_that_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (row("veth", finds("no"), required=True), row("ipvs", finds("no")))
    monkeypatch.setattr(capabilities, "_ROWS", rows)
    with pytest.raises(CapabilityError, match="veth") as caught:
        capabilities.require()
    assert "ipvs" not in str(caught.value)


def test_require_lets_the_unknown_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_ROWS", (row("veth", finds("unknown"), required=True),))
    capabilities.require()


def test_require_refuses_a_name_that_is_no_capability() -> None:
    with pytest.raises(ValueError, match="teleport"):
        capabilities.require({"veth", "teleport"})


@pytest.mark.parametrize(
    ("error", "found"),
    [(KernelError("refused"), "no"), (CapabilityError("no nft"), "no"), (PermissionError("not allowed"), "unknown")],
)
def test_a_test_that_fails_is_a_finding_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, error: Exception, found: str
) -> None:
    monkeypatch.setattr(capabilities, "_ROWS", (row("veth", fails(error)), row("bridge", finds("yes"))))
    assert [(each.name, each.found, each.detail) for each in capabilities.probe_all()] == [
        ("veth", found, str(error)),
        ("bridge", "yes", ""),
    ]
