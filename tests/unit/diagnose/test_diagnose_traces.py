"""What the kernel tells of drops and rules, decoded."""

from __future__ import annotations

from podnet.kernel.tracefs import Drop, _drops

TRACE = """# tracer: nop
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
          podnet-4711    [001] .....   12.000001: tracing_mark_write: podnet=17.0
           nginx-99      [000] ..s2.   12.000002: kfree_skb: skbaddr=00000000a rx_sk=0 protocol=2048 location=ip_forward+0x1/0x2 reason: PKT_TOO_BIG
          podnet-4711    [001] ..s2.   12.000003: kfree_skb: skbaddr=00000000b rx_sk=0 protocol=2048 location=ip_error+0x76/0x290 reason: IP_INADDRERRORS
 a name with [-1] in-4711    [001] ..s2.   12.000004: kfree_skb: skbaddr=0000000c protocol=34525 location=ip6_forward+0x1/0x2 reason: IP_INNOROUTES
          podnet-4711    [001] .....   12.000005: tracing_mark_write: podnet=
          podnet-4711    [001] ..s2.   12.000006: kfree_skb: skbaddr=0 rx_sk=0 protocol=2048 location=tcp_v4_rcv+0x1/0x2 reason: NO_SOCKET
"""  # noqa: E501 - lines as the kernel writes them


def test_only_drops_of_the_marking_task_between_its_marks_count() -> None:
    assert _drops(TRACE) == [
        Drop("17.0", 2048, "ip_error", "IP_INADDRERRORS"),
        Drop("17.0", 34525, "ip6_forward", "IP_INNOROUTES"),
    ]
