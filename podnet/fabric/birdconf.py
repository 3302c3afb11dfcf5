"""The configuration of BIRD 2 on one node or router, as text; a line a session, so that a difference can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.fabric.bgp import Session, Speaker
    from podnet.model.topology import Network

__all__ = ["text"]

# BIRD's defaults are for the internet: it would wait 5 s before it connects first, 120 s before it does so again, and
# up to 300 s after an error. A session is bound to its own addresses, so bird listens nowhere else.
_TEMPLATE = """\
template bgp neighbour {{
  local as {as_number};
  direct;
  strict bind on;
  med metric on;
  hold time {hold};
  keepalive time {keepalive};
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 4;
}}"""


def text(here: Speaker, networks: Sequence[Network], hold_time: int) -> str:
    """The whole file. What bird learns goes into the kernel, what it announces does not: the pods' bridge is there."""
    versions = sorted({session.version for session in here.sessions} | {cidr.version for cidr in here.cidrs})
    lines = [
        f"# bird on {here.name} in {here.netns}: written by podnet, which puts back what is changed here",
        "log stderr { info, remote, warning, error, auth, fatal, bug };",
        f"router id {here.router_id};",
        "protocol device { scan time 10; }",
    ]
    for version in versions:
        inside = ", ".join(f"{network}+" for network in networks if network.version == version)
        lines.append(f"define PODS{version} = [ {inside} ];")
        cidrs = [cidr for cidr in here.cidrs if cidr.version == version]
        if cidrs:
            own = " ".join(f"route {cidr} blackhole;" for cidr in cidrs)
            lines.append(f"protocol static 'own.ipv{version}' {{ ipv{version}; {own} }}")
        # Two seconds, not sixty: until then a route that somebody deleted is missing.
        lines.append(
            f"protocol kernel 'kernel.ipv{version}' {{ scan time 2; metric 32; "
            f"ipv{version} {{ import none; export where source = RTS_BGP; }}; }}"
        )
    lines.append(_TEMPLATE.format(as_number=here.as_number, hold=hold_time, keepalive=max(1, hold_time // 3)))
    lines += [_session(here, session) for session in here.sessions]
    return "\n".join(lines) + "\n"


def _session(here: Speaker, session: Session) -> str:
    # Nodes announce what is theirs: they are no way to others. A next hop that all share a subnet with is passed on.
    announced = "source = RTS_BGP" if here.router else "source = RTS_STATIC"
    pods = f"PODS{session.version}"
    return (
        f"protocol bgp '{session.name}' from neighbour {{ local {session.here}; "
        f"neighbor {session.there} as {session.as_number}; "
        f"ipv{session.version} {{ import filter {{ if net !~ {pods} then reject; bgp_med = {session.rank}; accept; }}; "
        f"export where {announced}; }}; }}"
    )
