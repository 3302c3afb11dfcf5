"""Which versions there are, what each allows, and what VERSION answers."""

from __future__ import annotations

import pytest

from podnet.cni.spec import versions
from podnet.cni.spec.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT, CNIError

OLD, BEFORE_CHECK = ("0.1.0", "0.2.0", "0.3.0", "0.3.1"), ("0.4.0", "1.0.0")


def test_supported_versions() -> None:
    assert (*OLD, *BEFORE_CHECK, "1.1.0") == versions.SUPPORTED


@pytest.mark.parametrize("version", versions.SUPPORTED)
@pytest.mark.parametrize("command", versions.COMMANDS)
def test_k_s_g_which_command_is_allowed_in_which_version(command: str, version: str) -> None:
    refused = (command == "CHECK" and version in OLD) or (command in ("GC", "STATUS") and version != "1.1.0")
    if not refused:
        versions.allow(command, version)
        return
    with pytest.raises(CNIError) as caught:
        versions.allow(command, version)
    assert caught.value.code == INCOMPATIBLE_VERSION
    assert caught.value.msg == f"config version does not allow {command}"


@pytest.mark.parametrize("version", ["9.9.9", "1.2.0", "0.3.2", "0.0.1", "1", "1.1"])
def test_c1_a_version_that_is_not_supported(version: str) -> None:
    with pytest.raises(CNIError) as caught:
        versions.allow("ADD", version)
    assert caught.value.code == INCOMPATIBLE_VERSION
    assert caught.value.msg == "incompatible CNI versions"
    assert caught.value.details == (
        f'config is "{version}", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]'
    )


@pytest.mark.parametrize("version", ["banana", "1.x", "1.0.0.0", "1..0", "-1.0", "+1.0.0", "1.0.0-rc1", "٣.0.0",
                                     "1.0.0\n", "9" * 5000])  # fmt: skip
@pytest.mark.parametrize("command", ["ADD", "CHECK", "GC"])
def test_c1_what_is_no_version(command: str, version: str) -> None:
    with pytest.raises(CNIError) as caught:
        versions.allow(command, version)
    assert caught.value.code == DECODING_FAILURE


def test_an_unknown_command_is_reported_before_the_version() -> None:
    with pytest.raises(CNIError) as caught:
        versions.allow("NOPE", "banana")
    assert (caught.value.code, caught.value.msg) == (INVALID_ENVIRONMENT, "unknown CNI_COMMAND: NOPE")


def test_order_of_versions() -> None:
    assert [*versions.SUPPORTED] == sorted(versions.SUPPORTED, key=versions.parse)
    assert versions.parse("1.10.0") > versions.parse("1.9.9")
    assert versions.parse("") == versions.parse("0.1.0") == (0, 1, 0)
    assert versions.at_least("1", "1.0.0")
    assert not versions.at_least("0.3.1", "0.4.0")


def test_v1_the_answer_echoes_the_version() -> None:
    assert versions.answer("0.4.0") == {"cniVersion": "0.4.0", "supportedVersions": [*versions.SUPPORTED]}
    assert versions.answer()["cniVersion"] == "1.1.0"


def test_p10_about() -> None:
    assert versions.about("CNI plugin x") == (
        "CNI plugin x\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
    )
