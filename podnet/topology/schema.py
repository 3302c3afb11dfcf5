"""The keys of the topology file: what parses it, what its JSON schema is made from, what its reference is made from.

Every field's description is the reference's text. What one value alone can tell is checked here; what needs a
second value (references, overlaps, capacity) is checked in ``podnet.topology.check``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema

from podnet.model.topology import Address as IpAddress
from podnet.model.topology import Network as IpNetwork
from podnet.topology import formats

__all__ = ["File", "json_schema"]

Name = Annotated[str, WithJsonSchema({"type": "string", "pattern": formats.NAME_PATTERN, "maxLength": 63})]
LabName = Annotated[str, WithJsonSchema({"type": "string", "pattern": formats.NAME_PATTERN, "maxLength": 40})]
Text = Annotated[str, AfterValidator(formats.text)]
Address = Annotated[
    IpAddress,
    PlainValidator(formats.address),
    WithJsonSchema({"type": "string", "pattern": formats.ADDRESS_PATTERN}),
]
Networks = Annotated[
    tuple[IpNetwork, ...],
    PlainValidator(formats.networks),
    WithJsonSchema({"type": "string", "pattern": formats.CIDR_PATTERN}),
]
Destination = Annotated[
    IpNetwork | None,
    PlainValidator(formats.destination),
    WithJsonSchema({"type": "string", "pattern": formats.DESTINATION_PATTERN}),
]
Source = Annotated[
    str,
    PlainValidator(formats.source),
    WithJsonSchema({"type": "string", "pattern": formats.SOURCE_PATTERN}),
]
InterfaceName = Annotated[
    str,
    AfterValidator(formats.interface_name),
    WithJsonSchema({"type": "string", "pattern": formats.INTERFACE_PATTERN, "not": {"enum": [".", ".."]}}),
]
BridgeName = Annotated[
    str,
    AfterValidator(formats.bridge_name),
    WithJsonSchema(
        {"type": "string", "pattern": formats.INTERFACE_PATTERN, "not": {"enum": [".", "..", "eth0", "lo"]}}
    ),
]
SysctlName = Annotated[
    str, AfterValidator(formats.sysctl_name), WithJsonSchema({"type": "string", "pattern": formats.SYSCTL_PATTERN})
]
SysctlValue = Annotated[
    str, PlainValidator(formats.sysctl_value), WithJsonSchema({"type": ["string", "integer", "boolean"]})
]
EnvName = Annotated[
    str, AfterValidator(formats.env_name), WithJsonSchema({"type": "string", "pattern": formats.ENV_PATTERN})
]
LabelKey = Annotated[
    str, AfterValidator(formats.label_key), WithJsonSchema({"type": "string", "pattern": formats.LABEL_KEY_PATTERN})
]
LabelValue = Annotated[
    str, AfterValidator(formats.label_value), WithJsonSchema({"type": "string", "pattern": formats.LABEL_VALUE_PATTERN})
]
Mtu = Annotated[int, Field(ge=68, le=65535)]
Port = Annotated[int, Field(ge=1, le=65535)]
Labels = dict[LabelKey, LabelValue]
Sysctls = dict[SysctlName, SysctlValue]


class Section(BaseModel):
    """A mapping of the file: its keys are in camelCase, none but those listed is taken, no type is guessed."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        arbitrary_types_allowed=True,
        defer_build=True,
    )


_DIRECT = "Whether nodes that share a subnet are routed to without a tunnel."


class Vxlan(Section):
    """Settings of `fabric: vxlan`."""

    vni: int = Field(1, ge=1, le=2**24 - 1, description="The VXLAN network identifier.")
    port: Port = Field(8472, description="The UDP port; `4789` is IANA's.")
    direct_routing: bool = Field(False, description=_DIRECT)


class Wireguard(Section):
    """Settings of `fabric: wireguard`."""

    port: Port = Field(51820, description="The UDP port.")


class Ipip(Section):
    """Settings of `fabric: ipip`."""

    direct_routing: bool = Field(False, description=_DIRECT)


class Bgp(Section):
    """Settings of `fabric: bgp`."""

    as_number: int = Field(
        64512,
        ge=1,
        le=2**32 - 10001,
        description="The first AS number: routers and nodes get one each from there on, and keep it.",
    )
    hold_time: int = Field(
        9,
        ge=3,
        le=65535,
        description="Seconds without a word after which a neighbour's routes are dropped (RFC 4271); "
        "it speaks three times as often.",
    )


class Networking(Section):
    """Cluster-wide settings, with the keys and defaults of kind's cluster configuration."""

    pod_subnet: Networks | None = Field(
        None,
        description="What all pods' addresses come from: a network, or `IPv4,IPv6` with `ipFamily: dual`. "
        "Default: `10.244.0.0/16`, `fd00:10:244::/56`, or both, by `ipFamily`.",
    )
    ip_family: Literal["ipv4", "ipv6", "dual"] = Field("ipv4", description="The IP versions in use.")
    fabric: Literal["host-gw", "vxlan", "wireguard", "ipip", "bgp", "none"] = Field(
        "host-gw",
        description="How nodes reach each other's pod CIDRs: `host-gw` is a route per node over the underlay, "
        "`vxlan`, `wireguard` (encrypted) and `ipip` (IPv4 only) are tunnels between the nodes, "
        "`bgp` has routing daemons on nodes and routers learn these routes from each other, "
        "`none` leaves it to the file's own `routes`.",
    )
    vxlan: Vxlan = Field(default=Vxlan.model_construct(), description="What `vxlan` tunnels are made with.")
    wireguard: Wireguard = Field(
        default=Wireguard.model_construct(), description="What `wireguard` tunnels are made with."
    )
    ipip: Ipip = Field(default=Ipip.model_construct(), description="What `ipip` tunnels are made with.")
    bgp: Bgp = Field(default=Bgp.model_construct(), description="How the daemons of `bgp` speak.")
    mtu: Mtu | None = Field(
        None,
        description="MTU of the pods' interfaces in bytes, at least 1280 with IPv6, at most the smallest underlay MTU "
        "less what the fabric takes. Default: exactly that.",
    )
    bridge: BridgeName = Field("podnet0", description="Name of the bridge on every node, at most 15 bytes.")
    masquerade: bool = Field(
        True, description="Whether what pods send out of the cluster leaves with their node's address."
    )
    cni: str | None = Field(
        None,
        min_length=1,
        description="A CNI configuration list that attaches the pods instead of podnet: its plugins are called as a "
        "container runtime calls them, in the node's namespace. A path, relative to this file; see *CNI plugins*.",
    )
    cni_path: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None,
        min_length=1,
        description="Where the plugins are, first found first taken; relative to this file. Default: podnet's own "
        "`cni`, `/usr/lib/cni`, `/opt/cni/bin`.",
    )
    node_cidr_mask_size_ipv4: int = Field(
        24,
        alias="nodeCIDRMaskSizeIPv4",
        ge=8,
        le=30,
        description="Prefix length of one node's share of the IPv4 `podSubnet`, not shorter than that of `podSubnet`.",
    )
    node_cidr_mask_size_ipv6: int = Field(
        64,
        alias="nodeCIDRMaskSizeIPv6",
        ge=16,
        le=126,
        description="Prefix length of one node's share of the IPv6 `podSubnet`, not shorter than that of `podSubnet`.",
    )


class Subnet(Section):
    """One layer-2 segment of the underlay."""

    name: Name = Field(description="Name of the subnet, a DNS label; nodes, clients and routers refer to it.")
    cidr: Networks = Field(description="Its network, or `IPv4,IPv6`: exactly the versions of `ipFamily`.")
    mtu: Mtu = Field(1500, description="Its MTU in bytes, at least 1280 with IPv6.")


class Route(Section):
    """A route besides those that podnet makes."""

    dst: Destination = Field(description="Destination: a network, an address, or `default` (of the version of `via`).")
    via: Address | None = Field(
        None, description="Next hop, of the version of `dst`, on a network that the sender is attached to."
    )
    dev: InterfaceName | None = Field(None, description="Interface to send on; needed where there is no `via`.")
    type: Literal["unicast", "blackhole", "unreachable", "prohibit"] = Field(
        "unicast", description="`unicast` forwards; the others refuse, and take neither `via` nor `dev`."
    )
    metric: int = Field(0, ge=0, le=2**32 - 1, description="The lower of two routes to the same destination wins.")
    mtu: int = Field(0, ge=0, le=65535, description="MTU of the path in bytes; `0` leaves it to the interface.")


_ROUTES = "Routes besides those that podnet makes."
_SYSCTLS = "Kernel settings of its network namespace, names below `net.`; `true` is 1, `false` is 0."


class Router(Section):
    """A namespace that joins underlay subnets and forwards between them."""

    name: Name = Field(description="Name of the router, a DNS label.")
    subnets: list[str] = Field(min_length=2, description="Names of the subnets that it joins, two or more.")
    addresses: list[Address] = Field(
        default=[], description="Its addresses, one per subnet and IP version. Default: the first of each subnet."
    )
    routes: list[Route] = Field(default=[], description=_ROUTES)
    sysctls: Sysctls = Field(default={}, description=_SYSCTLS)


class Underlay(Section):
    """The subnets that the nodes stand in, and what joins them."""

    subnets: list[Subnet] = Field(
        default=[],
        description="The subnets. Default: one named `underlay`, `198.18.0.0/24` and/or `fd00:198:18::/64` by "
        "`ipFamily`; `198.18.0.0/16` when it holds more than 250 nodes and clients.",
    )
    routers: list[Router] = Field(default=[], description="The routers between the subnets.")


class Node(Section):
    """A stand-in for a Kubernetes node."""

    name: Name = Field(description="Name of the node, a DNS label.")
    subnet: str | None = Field(None, description="The underlay subnet that it stands in. Default: the first one.")
    host: bool = Field(False, description="Whether the node is the machine's own network namespace; one node at most.")
    addresses: list[Address] = Field(
        default=[], description="Its underlay addresses, one per IP version. Default: chosen from its subnet."
    )
    pod_cidr: Networks | None = Field(
        None,
        alias="podCIDR",
        description="What its pods' addresses come from: a network inside `podSubnet`, or `IPv4,IPv6`. "
        "Default: the next free share of `podSubnet`.",
    )
    labels: Labels = Field(default={}, description="Labels that selectors match.")
    routes: list[Route] = Field(default=[], description=_ROUTES)
    sysctls: Sysctls = Field(default={}, description=_SYSCTLS)


class EnvVar(Section):
    """One environment variable."""

    name: EnvName = Field(description="Name of the variable.")
    value: Text = Field("", description="Its value.")


def _env_shape(value: object) -> str:
    return "=list" if isinstance(value, list) else "=mapping"


class Container(Section):
    """A process of the pod; the containers of a pod share its network namespace."""

    name: Name = Field(description="Name of the container, a DNS label, unique in its pod.")
    command: list[Text] = Field(min_length=1, description="The program and its arguments, each a text of its own.")
    args: list[Text] = Field(default=[], description="Further arguments, put behind `command`.")
    env: Annotated[
        Annotated[list[EnvVar], Tag("=list")] | Annotated[dict[EnvName, Text], Tag("=mapping")],
        Discriminator(_env_shape),
    ] = Field(default={}, description="Environment variables: a list of `name` and `value`, or a mapping.")


class Pod(Section):
    """A network namespace with `eth0`, and the containers that share it."""

    name: Name = Field(description="Name of the pod, a DNS label; the base of the names with `replicas`.")
    node: str = Field(description="Name of the node that it runs on.")
    replicas: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Number of equal pods, named `<name>-0`, `<name>-1` and so on. "
        "Without the key: one pod, named `<name>`.",
    )
    labels: Labels = Field(default={}, description="Labels that selectors match.")
    annotations: dict[LabelKey, Text] = Field(default={}, description="Any text by key.")
    addresses: list[Address] = Field(
        default=[],
        description="Fixed addresses, one per IP version, inside its node's pod CIDR; not together with `replicas`.",
    )
    containers: list[Container] = Field(default=[], description="Its processes; a pod without any is fine.")
    routes: list[Route] = Field(default=[], description=_ROUTES)
    sysctls: Sysctls = Field(default={}, description=_SYSCTLS)


class Client(Section):
    """A host outside the cluster; it knows no pod CIDR."""

    name: Name = Field(description="Name of the client, a DNS label.")
    subnet: str | None = Field(None, description="The underlay subnet that it stands in. Default: the first one.")
    addresses: list[Address] = Field(
        default=[], description="Its addresses, one per IP version. Default: chosen from its subnet."
    )
    routes: list[Route] = Field(default=[], description=_ROUTES)
    sysctls: Sysctls = Field(default={}, description=_SYSCTLS)


class Selector(Section):
    """What all of the given keys match; at least one pod, node or client must."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    labels: Labels | None = Field(None, min_length=1, description="Labels that a pod or node must have, all of them.")
    node: str | None = Field(None, description="Pods on this node.")
    kind: Literal["pod", "node", "client"] | None = Field(None, description="What it must be.")


def _word_or_mapping(value: object) -> str:
    return "=mapping" if isinstance(value, (dict, Selector)) else "=word"


def _selector_shape(value: object) -> str:
    return "=list" if isinstance(value, list) else _word_or_mapping(value)


def _port_shape(value: object) -> str:
    return "=list" if isinstance(value, list) else "=one"


Word = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1})]
Choice = Annotated[
    Annotated[Word, Tag("=word")] | Annotated[Selector, Tag("=mapping")], Discriminator(_word_or_mapping)
]
Selection = Annotated[
    Annotated[Word, Tag("=word")]
    | Annotated[Selector, Tag("=mapping")]
    | Annotated[Annotated[list[Choice], Field(min_length=1)], Tag("=list")],
    Discriminator(_selector_shape),
]
Ports = Annotated[
    Annotated[Port, Tag("=one")] | Annotated[Annotated[list[Port], Field(min_length=1)], Tag("=list")],
    Discriminator(_port_shape),
]


True_ = Annotated[bool, AfterValidator(formats.only_true), WithJsonSchema({"type": "boolean", "const": True})]


# The protocols of an expectation, in the order in which messages name them.
PROTOCOLS = ("icmp", "tcp", "udp", "sctp", "connect", "http", "dns", "arp", "nd")


class Expectation(Section):
    """What must be seen when the pairs of `from` and `to` talk, by exactly one protocol: a key from `icmp` to `nd`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [name]} for name in PROTOCOLS]})

    from_: Selection = Field(
        alias="from",
        description='The senders: a name, `pods`, `nodes`, `clients`, `"*"`, a selector, or a list of those.',
    )
    to: Selection = Field(description="The receivers, as in `from`.")
    icmp: True_ | None = Field(None, description="`true`: an ICMP echo.")
    tcp: Ports | None = Field(None, description="A TCP port, or a list of ports.")
    udp: Ports | None = Field(None, description="A UDP port, or a list of ports.")
    sctp: Ports | None = Field(
        None,
        description="An SCTP port, or a list: its INIT, which podnet answers itself, so that no kernel needs SCTP.",
    )
    connect: Ports | None = Field(
        None, description="A TCP port, or a list: a whole connection, not only its first step."
    )
    http: Ports | None = Field(None, description="A TCP port, or a list: an HTTP request, answered by any status.")
    dns: Ports | None = Field(None, description="A UDP port, or a list: a DNS query, answered by any response.")
    arp: True_ | None = Field(
        None,
        description="`true`: who has this IPv4 address, asked on the sender's link; answered by the receiver alone.",
    )
    nd: True_ | None = Field(None, description="`true`: the same for IPv6, a neighbour solicitation.")
    verdict: Literal["reach", "refuse", "drop"] = Field(
        "reach", description="What must happen: an answer comes, it is refused, or nothing comes back."
    )
    family: Literal["ipv4", "ipv6"] | None = Field(None, description="Only this IP version. Default: all in use.")
    source: Source | None = Field(
        None,
        description="The sender's address as the receiver must see it: `own`, `node` (that of the sender's node), "
        "`any`, or an address. Default: `own`; `any` where a client takes part or `verdict` is not `reach`.",
    )
    ttl: Annotated[int, Field(ge=1, le=255)] | None = Field(
        None, description="TTL or hop limit that the receiver must see: 64 less one for each host that forwards."
    )
    via: list[str] | None = Field(
        None, description="Names of the nodes and routers that forward the packet, in order; `[]` for none."
    )
    mtu: Mtu | None = Field(None, description="Size in bytes of the largest IP packet that passes; `icmp` only.")
    latency_ms: Annotated[int, Field(ge=1, le=60000)] | None = Field(
        None, description="Milliseconds that the median of 20 round trips may take; `icmp`, `tcp` and `udp` only."
    )
    loss_percent: Annotated[int, Field(ge=0, le=99)] | None = Field(
        None, description="Share of 100 packets that may be lost, in percent; `icmp`, `tcp` and `udp` only."
    )
    within: Annotated[int, Field(ge=1, le=3600)] | None = Field(
        None, description="Seconds that the network has to become what is expected: until then it is asked again."
    )


Percentage = Annotated[
    int, PlainValidator(formats.percentage), WithJsonSchema({"type": "string", "pattern": formats.PERCENTAGE_PATTERN})
]
Duration = Annotated[
    int, PlainValidator(formats.duration), WithJsonSchema({"type": "string", "pattern": formats.DURATION_PATTERN})
]
Rate = Annotated[int, PlainValidator(formats.rate), WithJsonSchema({"type": "string", "pattern": formats.RATE_PATTERN})]


class Impairment(Section):
    """What an interface does to the packets that it sends; without netem in the kernel, `rate` alone works."""

    target: str = Field(description="Name of a pod, node, client or router.")
    interface: InterfaceName = Field("eth0", description="The interface that sends.")
    delay: Duration | None = Field(None, description="How long each packet is held back, as in `20ms`.")
    jitter: Duration | None = Field(None, description="By how much `delay` varies, as in `5ms`.")
    loss: Percentage | None = Field(None, description="How many packets are lost, as in `1%`.")
    duplicate: Percentage | None = Field(None, description="How many packets are sent twice, as in `1%`.")
    reorder: Percentage | None = Field(None, description="How many packets are not held back, as in `25%`.")
    corrupt: Percentage | None = Field(None, description="How many packets have a bit flipped, as in `0.1%`.")
    rate: Rate | None = Field(None, description="Bits per second at most, as in `10mbit`.")


class File(Section):
    """A cluster network on one machine: nodes, pods, how they are joined, and what must be reachable."""

    name: LabName = Field(description="Name of the lab, a DNS label of at most 40 characters.")
    networking: Networking = Field(default=Networking.model_construct(), description="Cluster-wide settings.")
    underlay: Underlay = Field(
        default=Underlay.model_construct(), description="The subnets that the nodes stand in, and the routers between."
    )
    nodes: list[Node] = Field(min_length=1, description="The nodes, at least one.")
    pods: list[Pod] = Field(default=[], description="The pods.")
    clients: list[Client] = Field(default=[], description="Hosts outside the cluster, on the underlay.")
    impair: list[Impairment] = Field(default=[], description="Interfaces that lose, delay, disorder or limit.")
    expect: list[Expectation] = Field(
        default=[], description="Adds to, or overrides, what the Kubernetes network model says must be reachable."
    )


class _Generator(GenerateJsonSchema):
    """pydantic's generator, without a title per key, and without the `null` that no key takes."""

    def get_title_from_name(self, name: str) -> str:
        return ""

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a topology file, for editors and for ``podnet schema``."""
    schema = File.model_json_schema(by_alias=True, schema_generator=_Generator)
    return {"$schema": _Generator.schema_dialect, **_tidy(schema), "title": "podnet topology"}


def _tidy(value: Any) -> Any:
    """The schema without empty titles and ``default: null``, and with mappings closed to keys of a wrong form."""
    if isinstance(value, dict):
        closed = {"additionalProperties": False} if "patternProperties" in value else {}
        return closed | {
            k: _tidy(v)
            for k, v in value.items()
            if not (k == "title" and v == "") and not (k == "default" and v is None)
        }
    return [_tidy(v) for v in value] if isinstance(value, list) else value
