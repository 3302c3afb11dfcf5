"""Traffic control as bytes: checked against pyroute2's decoder, which is not ours."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from podnet.kernel import tc


def decoded(message: tc.Message) -> Any:
    kind, _, payload = message
    header = (len(payload) + 16).to_bytes(4, "little") + kind.to_bytes(2, "little") + bytes(10)
    found = tcmsg(header + payload)
    found.decode()
    return found


def options(message: tc.Message) -> dict[str, Any]:
    return dict(decoded(message).get_attr("TCA_OPTIONS")["attrs"])


@pytest.mark.parametrize(
    ("rate", "burst", "buffer", "limit"),
    [
        # What the reference plugin's own arithmetic gives (rate and burst in bytes).
        (125_000, 20_000, 2_500_000, 23_125),
        (1, 1, 15_625_000, 1),
        (3, 7, 36_458_328, 7),
        (1_000_000, 500, 7_812, 25_500),
        (12_500_000_000, 1_000_000, 1_250, 313_500_000),
        # Here it lets the upper bits go.
        (125_000, 536_870_911, 4_294_967_295, 536_874_036),
        (1, 4_295, 4_294_967_295, 4_295),
        (12_500_000_000, 4_294_967_294, 5_368_703, 4_294_967_295),
    ],
)
def test_3_5_2_the_arithmetic_of_a_bucket(rate: int, burst: int, buffer: int, limit: int) -> None:
    assert tc.Bucket.of(rate, burst) == tc.Bucket(rate, buffer, limit)


def test_a_bucket_tells_its_burst() -> None:
    assert tc.Bucket.of(125_000, 20_000).burst == 20_000


@pytest.mark.parametrize(
    ("rate", "short", "wide"), [(125_000, 125_000, None), (5_000_000_000, 0xFFFFFFFF, 5_000_000_000)]
)
def test_a_token_bucket(rate: int, short: int, wide: int | None) -> None:
    message = tc.add_bucket(7, tc.Bucket(rate, 11, 13))
    found, inner = decoded(message), options(message)
    assert (message[0], found["index"], found["handle"], found["parent"]) == (36, 7, 0x70640000, 0xFFFFFFFF)
    assert found.get_attr("TCA_KIND") == "tbf"
    parms = inner["TCA_TBF_PARMS"]
    assert (parms["rate"], parms["limit"], parms["buffer"]) == (short, 13, 11)
    # TCA_TBF_RATE64, of which pyroute2 knows nothing.
    assert message[2].endswith(struct.pack("=HHQ", 12, 4, wide)) if wide else inner.keys() == {"TCA_TBF_PARMS"}


def test_the_place_for_filters_and_the_redirect() -> None:
    place = decoded(tc.add_ingress(7))
    assert (place["handle"], place["parent"], place.get_attr("TCA_KIND")) == (0xFFFF0000, 0xFFFFFFF1, "ingress")
    message = tc.add_redirect(tc.Redirect(7, 9))
    found, inner = decoded(message), options(message)
    assert (message[0], found["index"], found["parent"], found["info"]) == (44, 7, 0xFFFF0000, 0x10300)
    assert inner["TCA_U32_SEL"]["keys"] == [{"key_mask": 0, "key_val": 0, "key_off": 0, "key_offmask": 0}]
    action = dict(dict(inner["TCA_U32_ACT"]["attrs"])["TCA_ACT_PRIO_1"]["attrs"])
    mirred = dict(action["TCA_ACT_OPTIONS"]["attrs"])["TCA_MIRRED_PARMS"]
    assert (action["TCA_ACT_KIND"], mirred["action"], mirred["eaction"], mirred["ifindex"]) == ("mirred", 4, 1, 9)


@pytest.mark.parametrize(
    ("subnet", "source", "keys", "info"),
    [
        ("10.1.2.3/24", True, [(0xFFFFFF00, 0x0A010200, 12)], 0x100008),
        ("10.1.2.3/24", False, [(0xFFFFFF00, 0x0A010200, 16)], 0x100008),
        ("10.1.2.3/32", False, [(0xFFFFFFFF, 0x0A010203, 16)], 0x100008),
        ("0.0.0.0/0", False, [(0, 0, 0)], 0x100008),
        ("fd00:1::/40", True, [(0xFFFFFFFF, 0xFD000001, 8), (0xFF000000, 0, 12)], 0xFDD86),
        ("fd00::1/128", False, [(0xFFFFFFFF, 0xFD000000, 24), (0xFFFFFFFF, 0, 28), (0xFFFFFFFF, 0, 32),
                                (0xFFFFFFFF, 1, 36)], 0xFDD86),
    ],
)  # fmt: skip
def test_2_5_what_a_subnet_is_known_by(subnet: str, source: bool, keys: list[tuple[int, int, int]], info: int) -> None:
    message = tc.add_match(7, subnet, tc.SHAPED, source=source)
    # pyroute2 reads the keys four bytes late: tc_u32_sel's own layout, and network order in masks and values.
    head = struct.pack("=BBBxHHhhI", 1, 0, len(keys), 0, 0, 0, 0, 0)
    words = b"".join(struct.pack(">II", mask, value) + struct.pack("=ii", at, 0) for mask, value, at in keys)
    assert message[2].endswith(head + words)
    assert (options(message)["TCA_U32_CLASSID"], decoded(message)["info"]) == (0x70640030, info)


def test_two_classes_one_of_them_limited() -> None:
    root, shaped, free = tc.add_classes(7, tc.Bucket(125_000, 11), tc.UNSHAPED)
    assert options(root)["TCA_HTB_INIT"]["defcls"] == tc.UNSHAPED
    assert [decoded(each)["handle"] for each in (shaped, free)] == [0x70640030, 0x70640001]
    parms = options(shaped)["TCA_HTB_PARMS"]
    assert (parms["rate"], parms["ceil"], parms["buffer"], parms["cbuffer"]) == (125_000, 125_000, 11, 11)
    assert options(free)["TCA_HTB_RATE64"] == 100_000_000_000
