# ruff: noqa: E501 - one row a check reads best
"""Every check of the topology file: the text, where the problem is told, what it says, what it advises.

In each text « stands right before the piece that the problem must point at; it is taken out before reading.
Every text has exactly one problem: a wrong value must not be told twice, nor make others wrong.
"""

from __future__ import annotations

import pytest

from podnet.errors import TopologyError
from podnet.topology.load import loads

HEAD = "name: lab\n"
ONE = HEAD + "nodes: [{name: n1}]\n"
TWO = HEAD + "nodes: [{name: n1}, {name: n2}]\n"
POD = ONE + "pods: [{name: web, node: n1, labels: {run: nginx}}]\n"
DUAL = HEAD + "networking: {ipFamily: dual}\n"


UNDERLAY_1300 = "underlay: {subnets: [{name: u, cidr: 'fd00:1::/64', mtu: 1300}]}\n"


def net(keys: str) -> str:
    return f"{HEAD}networking: {{{keys}}}\nnodes: [{{name: n1}}, {{name: n2}}]\n"


def node(keys: str) -> str:
    return f"{HEAD}nodes: [{{name: n1, {keys}}}]\n"


def pod(keys: str) -> str:
    return f"{ONE}pods: [{{name: web, node: n1, {keys}}}]\n"


def container(keys: str) -> str:
    return f"{ONE}pods: [{{name: web, node: n1, containers: [{{name: c, {keys}}}]}}]\n"


def expect(keys: str) -> str:
    return f"{POD}clients: [{{name: laptop}}]\nexpect:\n  - {{{keys}}}\n"


def route(keys: str) -> str:
    return f"{HEAD}nodes: [{{name: n1, routes: [{{{keys}}}]}}]\n"


SUBNETS = "{name: left, cidr: 198.18.1.0/24}, {name: right, cidr: 198.18.2.0/24}"
TWO_SUBNETS = f"{HEAD}underlay: {{subnets: [{SUBNETS}], routers: [{{name: r, subnets: [left, right]}}]}}\n"

YAML = [
    ("not closed", "name: lab\nnodes: [{name: n1}\n«pods: []\n", "a list that starts with [ is not closed", "]"),
    ("brace not closed", "name: lab\nnodes:\n- {name: n1\n- «{name: n2}\n", "not YAML", ""),
    ("tab", "name: lab\nnodes:\n«\t- name: n1\n", "a tab cannot indent", "spaces"),
    ("tab after a key", "name: lab\n«\tnodes: 1\n", "a tab cannot indent", "spaces"),
    ("quote", 'name: lab\nnodes: «"abc\n', "a quote is opened here and never closed", "close"),
    ("colon in text", "name: lab«: x\n", "a colon is not expected here", "quote"),
    ("indentation", "name: lab\nnodes:\n- name: n1\n «- name: n2\n", "does not fit those above", "indentation"),
    ("start of a value", "name: «@lab\n", "a value cannot start with @", "quotes"),
    ("tag", "name: «!x lab\nnodes: [{name: n1}]\n", 'YAML tag "!x" means nothing', "take the tag out"),
    ("python tag", ONE + "pods: «!!python/object/apply:os.system []\n", '"!!python/object/apply:os.system"', ""),
    ("binary tag", "name: «!!binary agk\nnodes: [{name: n1}]\n", '"!!binary"', ""),
    ("tag on a mapping", "name: lab\nnodes: [«!node {name: n1}]\n", '"!node"', ""),
    ("core tag that does not fit", "name: «!!int lab\nnodes: [{name: n1}]\n", "does not fit its YAML tag !!int", ""),
    ("duplicate key", ONE + "«nodes: []\n", 'the key "nodes" is already there, on line 2', "keep one"),
    ("duplicate label", node("labels: {a: x, «a: y}"), 'the key "a" is already there, on line 2', ""),
    ("two documents", ONE + "«---\nkind: Pod\n", "a second YAML document starts here", ""),
    ("recursive alias", HEAD + "nodes: &a [«*a]\n", "the alias *a stands inside the value that it names", ""),
    ("undefined alias", HEAD + "nodes: [«*a]\n", "the alias *a is not defined above", "&a"),
    ("merge of a text", HEAD + "nodes: [{name: n1, «<<: x}]\n", "the merge key << takes a mapping", "*anchor"),
    ("key is a list", ONE + "? «[a]\n: b\n", "a key must be a word", ""),
    ("key is a boolean", node("labels: {«on: x}"), 'the key "on" is read as the boolean true', 'quote it: "on"'),
    ("key is a number", node("labels: {«1: x}"), 'the key "1" is read as the number 1', 'quote it: "1"'),
    ("NUL", "name: lab\nnodes: «\0\n", "a NUL byte is not allowed", "text file"),
    ("control character", "name: la«\x1b[31mb\n", "the character U+001B is not allowed", ""),
    ("no mapping", "«- name: lab\n", "a topology is a mapping", "`name:`"),
    ("text", "«lab\n", "a topology is a mapping", ""),
    ("only comments", "«# nothing\n", "the file holds nothing", ""),
    (
        "no YAML 1.1 boolean for a name",
        "name: «no\nnodes: [{name: n1}]\n",
        "is read as the boolean false by YAML",
        '"no"',
    ),
    ("number for a name", "name: «123\nnodes: [{name: n1}]\n", "is read as the number 123", 'quote it: "123"'),
    ("date for a name", "name: «2001-01-01\nnodes: [{name: n1}]\n", "is read as a date", 'quote it: "2001-01-01"'),
    ("sexagesimal for a name", "name: «10:20\nnodes: [{name: n1}]\n", "the number 620 (base 60)", ""),
    ("null for a name", "«name:\nnodes: [{name: n1}]\n", "`name` has no value", "write a value"),
    ("null word", "name: lab\nnodes: [{name: n1, subnet: «null}]\n", '"null" is read as null', ""),
    ("null entry", HEAD + "nodes: [{name: n1}]\npods:\n  -«\n", "this entry has no value", ""),
    ("null list", ONE + "«pods:\n", "`pods` has no value", "take the line out"),
    ("octal", expect("from: web, to: n1, tcp: «0777"), "the number 511 (octal)", "decimal"),
    ("hexadecimal", expect("from: web, to: n1, tcp: «0x50"), "the number 80 (hexadecimal)", "decimal"),
    ("underscore", expect("from: web, to: n1, tcp: «1_000"), "the number 1000", ""),
    ("fraction", expect("from: web, to: n1, tcp: «80.5"), "a number with a fraction", ""),
    ("long number", expect("from: web, to: n1, tcp: «" + "9" * 5000), "more than 64 bits", ""),
    ("number in quotes", expect('from: web, to: n1, tcp: «"80"'), 'found the text "80"', "write 80 without quotes"),
    ("number in a command", container("command: [nc, «8080]"), "is read as the number 8080", 'quote it: "8080"'),
    ("boolean in a label", node("labels: {a: «yes}"), "is read as the boolean true", 'quote it: "yes"'),
    (
        "boolean in quotes",
        node('host: «"true"'),
        '`host` must be true or false, found the text "true"',
        "without quotes",
    ),
]

KEYS = [
    ("no nodes", "«name: lab\n", "the file has no `nodes`", "nodes: [{name: node1}]"),
    ("no name", "«nodes: [{name: n1}]\n", "the file has no `name`", "name: ..."),
    ("empty nodes", "name: lab\nnodes: «[]\n", "`nodes` needs at least 1 entry, found none", ""),
    ("misspelt key", "name: lab\nnodes: [{name: n1, «subnett: x}]\n", 'node "n1" has no key `subnett`', '"subnet"?'),
    ("misspelt required key", ONE + "pods: [{name: a, «nod: n1}]\n", 'pod "a" has no key `nod`', 'did you mean "node"?'),
    ("snake case", net("«pod_subnet: 10.0.0.0/16"), "has no key `pod_subnet`", 'did you mean "podSubnet"?'),
    ("key of another section", ONE + "«podSubnet: 10.0.0.0/8\n", "unknown key `podSubnet`", "is a key of `networking`"),
    ("manifest", ONE + "«apiVersion: v1\n", "unknown key `apiVersion`", "no Kubernetes manifest"),
    ("image", container("command: [a], «image: nginx"), 'container "c" has no key `image`', "write `command`"),
    ("no node", ONE + "pods: [«{name: web}]\n", 'pod "web" has no `node`', "write `node: NAME`"),
    ("no command", container("«args: [a]").replace("«", "").replace("[{name: c", "[«{name: c"), "has no `command`", "list"),
    ("node is a text", HEAD + "nodes: [«n1]\n", "an entry of `nodes` must be a mapping", "- name: n1"),
    ("nodes is a mapping", HEAD + "nodes: «{name: n1}\n", "`nodes` must be a list, found a mapping", '"- "'),
    ("networking is a list", HEAD + "networking: «[a]\nnodes: [{name: n1}]\n", "must be a mapping", ""),
    ("command is a text", container("command: «nc -l 80"), "`command` must be a list", 'write [nc, -l, "80"]'),
    ("empty command", container("command: «[]"), "`command` needs at least 1 entry", ""),
    ("impair nobody", ONE + "impair: [{target: «n2, loss: 5%}]\n", 'there is no "n2" to impair', "there is n1"),
    ("impair an interface", ONE + "impair: [{target: n1, interface: «eth7, loss: 5%}]\n", "no interface", '"eth0"'),
    ("impair by nothing", ONE + "impair: [«{target: n1}]\n", "nothing is impaired: write one of `delay`", ""),
    ("impair twice", ONE + "impair: [{target: n1, loss: 5%}, «{target: n1, rate: 5mbit}]\n", "impaired already", "one"),
    ("jitter alone", ONE + "impair: [«{target: n1, jitter: 5ms}]\n", "jitter without a delay", "write `delay`"),
    ("loss without a unit", ONE + "impair: [{target: n1, loss: «5}]\n", "5 has no unit", "write it like 5%"),
    ("loss of more than all", ONE + "impair: [{target: n1, loss: «101%}]\n", "101% is too large for a percentage", "5%"),
    ("rate in a wrong unit", ONE + "impair: [{target: n1, rate: «5Mb}]\n", '"5Mb" is no rate', "write it like 10mbit"),
    ("fabric", net("fabric: «vlan"), 'there is no fabric "vlan"', "host-gw, vxlan, wireguard, ipip, bgp and none"),
    ("a machine that would speak BGP", f"{HEAD}networking: {{fabric: bgp}}\nnodes: [{{name: n1, host: «true}}]\n",
     "with `fabric: bgp` no node is the machine itself", "take `host: true` out"),
    ("a first AS number", net("fabric: bgp, bgp: {asNumber: «0}"), "`asNumber` must be from 1 to", ""),
    ("hold time", net("fabric: bgp, bgp: {holdTime: «2}"), "`holdTime` must be from 3 to 65535", ""),
    ("settings of another fabric", net("«vxlan: {vni: 7}"), "`vxlan` has settings, and `fabric` is host-gw", "take"),
    ("a fabric that carries IPv4 only", net("ipFamily: dual, fabric: «ipip"), "ipip carries IPv4 only", "take vxlan"),
    ("vni", net("fabric: vxlan, vxlan: {vni: «16777216}"), "`vni` must be from 1 to 16777215", ""),
    ("mtu above what vxlan leaves", net("fabric: vxlan, mtu: «1451"), "of which vxlan takes 50", "write 1450 or less"),
    ("mtu above what wireguard leaves over IPv6", net("ipFamily: ipv6, fabric: wireguard, mtu: «1421"),
     "of which wireguard takes 80", "write 1420 or less"),
    ("too little left for IPv6", net("ipFamily: ipv6, fabric: «vxlan") + UNDERLAY_1300,
     "that leaves 1230 for pods, and IPv6 needs at least 1280", "raise `mtu` of that subnet to 1350"),
    ("ipFamily", net("ipFamily: «ipv5"), '"ipv5" is no `ipFamily`', "did you mean"),
    ("verdict", expect("from: web, to: n1, icmp: true, verdict: «reech"), "is no `verdict`", 'did you mean "reach"?'),
    ("replicas of none", pod("replicas: «0"), "`replicas` must be from 1 to 1000, found 0", ""),
    ("too many replicas", pod("replicas: «1001"), "`replicas` must be from 1 to 1000, found 1001", ""),
    ("port", expect("from: web, to: n1, udp: «65536"), "`udp` must be from 1 to 65535, found 65536", ""),
    ("port in a list", expect("from: web, to: n1, tcp: [80, «0]"), "must be from 1 to 65535, found 0", ""),
    ("mtu", net("mtu: «67"), "`mtu` must be from 68 to 65535, found 67", ""),
    ("bridge too long", net("bridge: «abcdefghijklmnop"), "1 to 15 bytes, this has 16", ""),
    ("bridge with a slash", net("bridge: «a/b"), "is no interface name", '"/" is not allowed'),
    ("bridge with a space", net('bridge: «"a b"'), "is no interface name", '" " is not allowed'),
    ("bridge dots", net('bridge: «".."'), "is no interface name", ""),
    ("bridge eth0", net("bridge: «eth0"), '"eth0" is the name of another interface', "podnet0"),
    ("bridge lo", net("bridge: «lo"), '"lo" is the name of another interface', ""),
    ("label key", node('labels: {«"a b": x}'), '"a b" is no key of a label', "at most 63"),
    ("label value", node('labels: {a: «"x y"}'), '"x y" is no value of a label', "`annotations` take any text"),
    ("sysctl outside", node("sysctls: {«kernel.panic: 1}"), "is no sysctl of a network namespace", "net.a.b.c"),
    ("sysctl path", node("sysctls: {«net/ipv4/ip_forward: 1}"), "is no sysctl", "with dots"),
    ("sysctl dots", node("sysctls: {«net...etc.passwd: 1}"), "is no sysctl", ""),
    ("sysctl value", node('sysctls: {net.a: «"1\\n2"}'), "is no sysctl value", "one line"),
    ("env name", container("command: [a], env: {«1A: x}"), '"1A" is no name of an environment variable', ""),
    ("env twice", container("command: [a], env: [{name: A}, {name: «A}]"), '"A" is set twice', "keep one"),
    ("env value", container("command: [a], env: {A: «1}"), "is read as the number 1", 'quote it: "1"'),
    ("env valueFrom", container("command: [a], env: [{name: A, «valueFrom: x}]"), "no key `valueFrom`", "`value`"),
    ("NUL in a command", container('command: [«"a\\0b"]'), "a NUL character is not allowed", ""),
    ("one subnet for a router", TWO_SUBNETS.replace("[left, right]", "«[left]") + "nodes: [{name: n1}]\n", "2 entries", ""),
]  # fmt: skip

NAMES = [
    ("lab name", "name: «Lab\nnodes: [{name: n1}]\n", '"Lab" is no name', "write lab"),
    ("lab name too long", f"name: «{'a' * 41}\nnodes: [{{name: n1}}]\n", "41 characters long, and 40 are allowed", ""),
    ("path as a name", 'name: «"../../etc"\nnodes: [{name: n1}]\n', "is no name", ""),
    ("newline in a name", 'name: «"lab\\n"\nnodes: [{name: n1}]\n', "is no name", "write lab"),
    ("empty name", 'name: «""\nnodes: [{name: n1}]\n', '"" is no name', ""),
    ("node name", HEAD + "nodes: [{name: «node_1}]\n", '"node_1" is no name', "write node-1"),
    ("long node name", f"{HEAD}nodes: [{{name: «{'a' * 64}}}]\n", "64 characters long, and 63", "shorten"),
    ("replica's name too long", f"{ONE}pods: [{{name: «{'a' * 60}, node: n1, replicas: 101}}]\n", "59 are allowed", ""),
    ("two nodes", HEAD + "nodes:\n- name: n1\n- name: «n1\n", '"n1" is the name of a node already, on line 3', "give it"),
    ("pod like a node", ONE + "pods: [{name: «n1, node: n1}]\n", '"n1" is the name of a node already', "share"),
    ("client like a pod", POD + "clients: [{name: «web}]\n", '"web" is the name of a pod already, on line 3', ""),
    (
        "replica like a pod",
        f"{ONE}pods:\n- {{name: web-1, node: n1}}\n- {{name: «web, node: n1, replicas: 2}}\n",
        '"web-1", one of the replicas of "web", is the name of a pod already, on line 4',
        "",
    ),
    ("base like a node", HEAD + "nodes: [{name: web}]\npods: [{name: «web, node: web, replicas: 2}]\n", "already", ""),
    ("reserved underlay", HEAD + "nodes: [{name: «underlay}]\n", "the namespace of the underlay's switches", ""),
    ("reserved pods", ONE + "pods: [{name: «pods, node: n1}]\n", "all pods in `expect`", "another name"),
    ("two subnets", HEAD + "underlay: {subnets: [{name: a, cidr: 198.18.1.0/24}, {name: «a, cidr: 198.18.2.0/24}]}\n"
     "nodes: [{name: n1}]\n", 'a subnet "a" already', ""),
    ("two containers", pod("containers: [{name: c, command: [a]}, {name: «c, command: [b]}]"),
     'a container of pod "web" "c" already', ""),
    ("unknown node", TWO + "pods: [{name: web, node: «n3}]\n", 'pod "web" runs on node "n3", which does not exist', "there is n1, n2"),
    ("client for a node", ONE + "clients: [{name: c1}]\npods: [{name: web, node: «c1}]\n", "which is a client", "n1"),
    ("unknown subnet", HEAD + "nodes: [{name: n1, subnet: «underlai}]\n", "which does not exist", '"underlay"?'),
    ("client's subnet", TWO_SUBNETS + "nodes: [{name: n1}]\nclients: [{name: c, subnet: «righ}]\n", 'subnet "righ"', '"right"?'),
    ("router's subnet", TWO_SUBNETS.replace(", right]", ", «rigt]") + "nodes: [{name: n1}]\n", 'joins subnet "rigt"', '"right"?'),
    ("router's subnet twice", TWO_SUBNETS.replace(", right]", ", «left]") + "nodes: [{name: n1}]\n", "twice", "once"),
    ("two host nodes", HEAD + "nodes: [{name: n1, host: true}, {name: n2, host: «true}]\n", 'node "n1" is it already', ""),
    ("too many pods", HEAD + "networking: {podSubnet: 10.0.0.0/8, nodeCIDRMaskSizeIPv4: 22}\nnodes:\n"
     + "".join(f"- name: n{i}\n" for i in range(11)) + "«pods:\n"
     + "".join(f"- {{name: p{i}, node: n{i}, replicas: {1000 - 999 * (i == 10)}}}\n" for i in range(11)),
     "asks for 10,001 pods, and one lab holds at most 10,000", "replicas"),
]  # fmt: skip

RANGES = [
    ("host bits", net("podSubnet: «10.244.0.1/16"), '"10.244.0.1/16" has host bits set', "10.244.0.0/16"),
    ("no prefix length", net("podSubnet: «10.244.0.0"), "has no prefix length", "10.244.0.0/24"),
    ("prefix length", net("podSubnet: «10.244.0.0/33"), "a number from 0 to 32", ""),
    ("netmask", net("podSubnet: «10.244.0.0/255.255.0.0"), "a number from 0 to 32", "write 10.244.0.0/16"),
    ("no network", net("podSubnet: «10.244/16"), "is no IPv4 or IPv6 network", ""),
    ("octet", net("podSubnet: «10.256.0.0/16"), "is no IPv4 or IPv6 network", "at most 255"),
    ("leading zero", net("podSubnet: «010.1.0.0/16"), "is no IPv4 or IPv6 network", "write 10.1.0.0"),
    ("empty part", net('podSubnet: «"10.244.0.0/16,"'), "a network is missing", ""),
    ("two of a version", net('podSubnet: "10.1.0.0/16,«10.2.0.0/16"'), "two IPv4 networks", "at most"),
    ("list", net("podSubnet: «[10.1.0.0/16]"), "are written as one text", '"10.1.0.0/16"'),
    ("second of two", net('ipFamily: dual, podSubnet: "10.1.0.0/16,«fd00::1/64"'), "has host bits set", "fd00::/64"),
    ("IPv6 by default", net("podSubnet: «fd00::/56"), "`ipFamily` is ipv4 (the default)", "`ipFamily: ipv6`"),
    ("both by default", net('podSubnet: «"10.1.0.0/16,fd00::/56"'), "`podSubnet` is IPv4 and IPv6", "`ipFamily: dual`"),
    ("one of both", net("ipFamily: dual, podSubnet: «10.1.0.0/16"), "`podSubnet` is IPv4", "`ipFamily: ipv4`"),
    ("share too large", net("nodeCIDRMaskSizeIPv4: «15"), "cannot be larger than 10.244.0.0/16", "16` or more"),
    ("share of a small subnet", net("podSubnet: «10.1.0.0/26"), "is 24 (the default)", "nodeCIDRMaskSizeIPv4: 26"),
    ("share of the other version", net("«nodeCIDRMaskSizeIPv6: 64"), "has no meaning", "take it out"),
    ("too few shares", net("podSubnet: «10.1.0.0/24"), "holds 1 node of /24, and there are 2 nodes", "`podSubnet` of /23"),
    ("multicast", net("podSubnet: «224.0.0.0/8"), "overlaps the multicast range 224.0.0.0/4", "10.0.0.0/8"),
    ("loopback", net("podSubnet: «127.0.0.0/8"), "overlaps the loopback range", ""),
    ("link-local", net("ipFamily: ipv6, podSubnet: «'fe80::/56'"), "overlaps the link-local range", "fd00::/8"),
    ("mtu for IPv6", net("ipFamily: dual, mtu: «1279"), "IPv6 needs at least 1280", ""),
    ("mtu over the underlay's", net("mtu: «1501"), 'subnet "underlay" of the underlay carries 1500', "1500 or less"),
    ("subnet's mtu for IPv6", HEAD + "networking: {ipFamily: ipv6}\nnodes: [{name: n1}]\n"
     "underlay: {subnets: [{name: a, cidr: 'fd01::/64', mtu: «1000}]}\n", "IPv6 needs at least 1280", ""),
    ("subnet in the pod subnet", ONE + "underlay: {subnets: [{name: a, cidr: «10.244.9.0/24}]}\n",
     "overlaps the default `podSubnet` 10.244.0.0/16", "range of its own"),
    ("pod subnet in the default underlay", net("podSubnet: «198.18.0.0/16"), "overlaps the default underlay", ""),
    ("subnets overlap", ONE + "underlay: {subnets: [{name: a, cidr: 10.1.0.0/16}, {name: b, cidr: «10.1.2.0/24}], "
     "routers: [{name: r, subnets: [a, b]}]}\n", 'subnet "b" 10.1.2.0/24 overlaps subnet "a" 10.1.0.0/16 on line 3', ""),
    ("subnet lacks a version", DUAL + "nodes: [{name: n1}]\nunderlay: {subnets: [{name: a, cidr: «10.1.0.0/16}]}\n",
     "it needs an IPv6 network", "IPv4,IPv6"),
    ("subnet of the other version", ONE + 'underlay: {subnets: [{name: a, cidr: "10.1.0.0/16,«fd00::/64"}]}\n',
     "`ipFamily` is ipv4", "take the IPv6 network out"),
    ("podCIDR outside", node("podCIDR: «10.9.0.0/24"), "is not inside `podSubnet` 10.244.0.0/16", ""),
    ("podCIDR of one version", DUAL + "nodes: [{name: n1, podCIDR: «10.244.1.0/24}]\n", "it needs an IPv6 network", ""),
    ("podCIDR too small", node("podCIDR: «10.244.0.0/31"), "holds no pod besides the gateway", ""),
    ("podCIDRs overlap", HEAD + "nodes:\n- {name: n1, podCIDR: 10.244.0.0/23}\n- {name: n2, podCIDR: «10.244.1.0/24}\n",
     'overlaps `podCIDR` of node "n1" 10.244.0.0/23 on line 3', ""),
    ("same podCIDR", HEAD + "nodes:\n- {name: n1, podCIDR: 10.244.0.0/24}\n- {name: n2, podCIDR: «10.244.0.0/24}\n",
     'overlaps `podCIDR` of node "n1"', ""),
    ("podCIDRs take all", net("podSubnet: «10.1.0.0/23").replace("{name: n1}", "{name: n1, podCIDR: 10.1.0.0/23}"),
     "2 of them taken by `podCIDR`", ""),
    ("pods on a node", HEAD + "nodes: [{name: «n1}]\npods: [{name: a, node: n1, replicas: 254}]\n",
     "its pod CIDR of /24 holds 253", "nodeCIDRMaskSizeIPv4: 23"),
    ("pods in a podCIDR", node("podCIDR: «10.244.0.0/29") + "pods: [{name: a, node: n1, replicas: 6}]\n",
     "its pod CIDR of /29 holds 5", "take a /28"),
    ("pods of an IPv6 node", HEAD + "networking: {ipFamily: ipv6, podSubnet: 'fd00::/120', nodeCIDRMaskSizeIPv6: 124}\n"
     "nodes: [{name: «n1}]\npods: [{name: a, node: n1, replicas: 15}]\n", "its pod CIDR of /124 holds 14", "123"),
    ("ports of a bridge", HEAD + "networking: {nodeCIDRMaskSizeIPv4: 20}\nnodes: [{name: «n1}]\n"
     "pods: [{name: a, node: n1, replicas: 1000}, {name: b, node: n1, replicas: 24}]\n",
     "has 1,024 pods, and a bridge has at most 1,023 ports", "another node"),
    ("hosts of a subnet", TWO + "underlay: {subnets: [{name: a, cidr: «10.1.0.0/30}]}\n",
     "has 1 addresses for hosts, its first address left to a router; 2 stand in it", "take a /29"),
    ("ports of a subnet", f"{HEAD}networking: {{podSubnet: 10.0.0.0/8}}\n«nodes:\n"
     + "".join(f"- name: n{i}\n" for i in range(1024)), "1,024 nodes, clients and routers", "several subnets"),
]  # fmt: skip

ADDRESSES = [
    ("address with prefix", node("addresses: [«198.18.0.5/24]"), "has a prefix length, and an address has none", "198.18.0.5"),
    ("no address", node("addresses: [«198.18.0.x]"), "is no IPv4 or IPv6 address", ""),
    ("zone", node("addresses: [«'fe80::1%eth0']"), "is no IPv4 or IPv6 address", "zone"),
    ("outside", node("addresses: [«10.9.9.9]"), 'is not in its subnet "underlay", 198.18.0.0/24', "an address of"),
    ("other subnet", TWO_SUBNETS + "nodes: [{name: n1, addresses: [«198.18.2.9]}]\n", "is not in its subnet", "subnet: right"),
    ("network's address", node("addresses: [«198.18.0.0]"), "is the address of the network", ""),
    ("broadcast", node("addresses: [«198.18.0.255]"), "is the broadcast address", ""),
    ("anycast", HEAD + "networking: {ipFamily: ipv6}\nnodes: [{name: n1, addresses: [«'fd00:198:18::']}]\n", "network", ""),
    ("other version", node("addresses: [«'fd00:198:18::5']"), "is IPv6, and `ipFamily` is ipv4", "an IPv4 address"),
    ("two of a version", node("addresses: [198.18.0.5, «198.18.0.6]"), 'node "n1" has two IPv4 addresses', ""),
    ("duplicate", HEAD + "nodes: [{name: n1, addresses: [198.18.0.5]}, {name: n2, addresses: [«198.18.0.5]}]\n",
     'is the address of node "n1" already', "take another"),
    ("router's", TWO_SUBNETS + "nodes: [{name: n1, addresses: [«198.18.1.1]}]\n", 'the address of router "r" already', ""),
    ("router's own", TWO_SUBNETS.replace("right]}]", "right], addresses: [«10.0.0.1]}]") + "nodes: [{name: n1}]\n",
     'in none of its subnets ("left", "right")', ""),
    ("router's two", TWO_SUBNETS.replace("right]}]", "right], addresses: [198.18.1.1, «198.18.1.2]}]")
     + "nodes: [{name: n1}]\n", 'has two IPv4 addresses in subnet "left"', ""),
    ("pod with replicas", pod("replicas: 2, «addresses: [10.244.0.5]"), "has `replicas` and `addresses`", ""),
    ("pod outside", pod("addresses: [«10.9.0.5]"), "is not in `podSubnet` 10.244.0.0/16", ""),
    ("pod outside podCIDR", node("podCIDR: 10.244.7.0/24") + "pods: [{name: a, node: n1, addresses: [«10.244.8.5]}]\n",
     'is not in `podCIDR` 10.244.7.0/24 of node "n1"', ""),
    ("pod is the gateway", pod("addresses: [«10.244.0.1]"), "is the gateway of its node's pod CIDR 10.244.0.0/24", ""),
    ("pod has the broadcast", pod("addresses: [«10.244.0.255]"), "is the broadcast address of 10.244.0.0/24", ""),
    ("two pods", ONE + "pods: [{name: a, node: n1, addresses: [10.244.0.5]}, "
     "{name: b, node: n1, addresses: [«10.244.0.5]}]\n", 'is the address of pod "a" already', ""),
    ("two shares on a node", ONE + "pods: [{name: a, node: n1, addresses: [10.244.0.5]}, "
     "{name: b, node: n1, addresses: [«10.244.1.5]}]\n", "is not in 10.244.0.0/24, where another pod", "`podCIDR`"),
    ("a share on two nodes", TWO + "pods: [{name: a, node: n1, addresses: [10.244.0.5]}, "
     "{name: b, node: n2, addresses: [«10.244.0.6]}]\n", 'the pod CIDR of node "n1", and the pod runs on "n2"', "node: n1"),
    ("not joined", HEAD + f"underlay: {{subnets: [{SUBNETS}]}}\nnodes:\n- {{name: n1}}\n- {{name: n2, subnet: «right}}\n",
     'no router joins that with "left", where node "n1" stands', "subnets: [left, right]"),
    ("client not joined", HEAD + f"underlay: {{subnets: [{SUBNETS}]}}\nnodes: [{{name: n1}}]\n"
     "clients: [{name: c, subnet: «right}]\n", "no router joins that", ""),
]  # fmt: skip

ROUTES = [
    ("no destination", route("via: 198.18.0.9").replace("[{via", "[«{via"), "route has no `dst`", "dst: 203.0.113.0/24"),
    ("host bits", route("dst: «192.0.2.1/24, via: 198.18.0.9"), "has host bits set", "192.0.2.0/24"),
    ("versions", route("dst: 192.0.2.0/24, via: «'fd00::1'"), "next hop fd00::1 is IPv6", "IPv4 next hop"),
    ("version not in use", route("dst: «'2001:db8::/32', dev: eth0"), "is IPv6, and `ipFamily` is ipv4", ""),
    ("nowhere", route("dst: «192.0.2.0/24"), "leads nowhere", "type: blackhole"),
    ("not attached", route("dst: 192.0.2.0/24, via: «192.0.2.1"), "does not reach the next hop 192.0.2.1", "198.18.0.0/24"),
    ("link-local", HEAD + "networking: {ipFamily: ipv6}\nnodes: [{name: n1, routes: [{dst: default, via: «'fe80::1'}]}]\n",
     "needs an interface", "dev: eth0"),
    ("blackhole with via", route("dst: 192.0.2.0/24, type: blackhole, «via: 198.18.0.9"), "has no `via`", ""),
    ("prohibit with dev", route("dst: default, type: prohibit, «dev: eth0"), "a prohibit route has no `dev`", ""),
    ("interface", route("dst: 192.0.2.0/24, dev: «eth1"), 'node "n1" has no interface "eth1"', '"eth0"?'),
    ("router's interface", TWO_SUBNETS.replace("right]}]", "right], routes: [{dst: 192.0.2.0/24, dev: «eth2}]}]")
     + "nodes: [{name: n1}]\n", 'router "r" has no interface "eth2"', '"eth1"?'),
    ("type", route("dst: 192.0.2.0/24, type: «blckhole"), "is no `type`", '"blackhole"?'),
    ("metric", route("dst: 192.0.2.0/24, via: 198.18.0.9, metric: «-1"), "from 0 to 4294967295", ""),
    ("mtu", route("dst: 192.0.2.0/24, via: 198.18.0.9, mtu: «60"), "IPv4 needs at least 68", ""),
    ("twice", route("dst: 192.0.2.0/24, via: 198.18.0.9}, {dst: «192.0.2.0/24, dev: eth0"), "metric 0 already", "`metric`"),
    ("pod's next hop", pod("routes: [{dst: 192.0.2.0/24, via: «198.18.0.9}]"), 'pod "web" does not reach', "10.244.0.0/16"),
    ("router's", TWO_SUBNETS.replace("right]}]", "right], routes: [{dst: 192.0.2.0/24, via: «1.1.1.1}]}]")
     + "nodes: [{name: n1}]\n", 'router "r" does not reach', "198.18.1.0/24 or 198.18.2.0/24"),
    ("client's", ONE + "clients: [{name: c, routes: [{dst: 192.0.2.0/24, via: «1.1.1.1}]}]\n", 'client "c"', ""),
]  # fmt: skip

EXPECT = [
    ("no protocol", expect("from: web, to: n1").replace("- {", "- «{"), "one of `icmp: true`", ""),
    ("two of the further protocols", expect("from: web, to: n1, http: 80, «dns: 53"), "found 2", ""),
    ("arp by ipv6", expect("from: web, to: n1, arp: true, family: «ipv6"), "`arp` is of IPv4, and `family` is ipv6", "nd: true"),
    ("nd without ipv6", expect("from: web, to: n1, «nd: true"), "`nd` is of IPv6, and the lab has IPv4 only", "arp: true"),
    ("arp refused", expect("from: web, to: n1, arp: true, verdict: «refuse"), "nobody can refuse `arp`", "`drop`"),
    ("arp with a port", expect("from: web, to: n1, arp: «80"), "`arp` must be true or false", ""),
    ("ttl of arp", expect("from: web, to: n1, arp: true, «ttl: 64"), "`ttl` is not measured by `arp`", "icmp"),
    ("fraction of a ms", expect("from: web, to: n1, icmp: true, latencyMs: «0.5"), "a number with a fraction", ""),
    ("http port", expect("from: web, to: n1, http: «0"), "`http` must be from 1 to 65535, found 0", ""),
    ("ttl of a drop", expect("from: web, to: n1, icmp: true, verdict: drop, «ttl: 62"), "`verdict` is drop", "take"),
    ("mtu by tcp", expect("from: web, to: n1, tcp: 80, «mtu: 1400"), "`mtu` is not measured by `tcp`", "for icmp"),
    ("latency by http", expect("from: web, to: n1, http: 80, «latencyMs: 5"), "`latencyMs` is not measured", "icmp"),
    ("no latency", expect("from: web, to: n1, icmp: true, latencyMs: «0"), "`latencyMs` must be from 1 to 60000, found 0", ""),
    ("all lost", expect("from: web, to: n1, icmp: true, lossPercent: «100"), "`lossPercent` must be from 0 to 99, found 100", ""),
    ("forever", expect("from: web, to: n1, icmp: true, within: «0"), "`within` must be from 1 to 3600, found 0", ""),
    ("via a pod", expect("from: web, to: n1, icmp: true, via: [«web]"), 'no node or router "web"', ""),
    ("two protocols", expect("from: web, to: n1, icmp: true, «tcp: 80"), "found 2", ""),
    ("icmp false", expect("from: web, to: n1, icmp: «false"), "this takes only true", ""),
    ("icmp number", expect("from: web, to: n1, icmp: «1"), "`icmp` must be true or false", ""),
    ("no from", expect("to: n1, icmp: true").replace("- {", "- «{"), "expectation has no `from`", ""),
    ("unknown name", expect("from: «wbe, to: n1, icmp: true"), 'no pod, node or client "wbe"', 'did you mean "web"?'),
    ("unknown in a list", expect("from: web, to: [n1, «n9], icmp: true"), 'client "n9"', "there is n1, web, laptop"),
    ("router", TWO_SUBNETS + "nodes: [{name: n1}]\nexpect: [{from: n1, to: «r, icmp: true}]\n", "is a router", ""),
    ("subset of none", ONE + "expect: [{from: «pods, to: n1, icmp: true}]\n", "`pods` selects nothing", ""),
    ("labels of none", expect("from: «{labels: {run: ngnix}}, to: n1, icmp: true"), "matches no pod", '"run: nginx"?'),
    ("node of none", expect("from: {node: «n7}, to: n1, icmp: true"), 'there is no node "n7"', "there is n1"),
    ("combination of none", expect("from: «{kind: client, node: n1}, to: n1, icmp: true"), "matches no pod", ""),
    ("empty selector", expect("from: «{}, to: n1, icmp: true"), "at least one of `labels`, `node` and `kind`", '"*"'),
    ("empty labels", expect("from: {labels: «{}}, to: n1, icmp: true"), "`labels` needs at least 1 entry", ""),
    ("kind", expect("from: {kind: «pdo}, to: n1, icmp: true"), '"pdo" is no `kind`', '"pod"?'),
    ("key of a selector", expect("from: {«label: {}}, to: n1, icmp: true"), "has no key `label`", '"labels"?'),
    ("empty list", expect("from: «[], to: n1, icmp: true"), "`from` needs at least 1 entry", ""),
    ("number", expect("from: «1, to: n1, icmp: true"), "is read as the number 1", '"1"'),
    ("family not in use", expect("from: web, to: n1, icmp: true, family: «ipv6"), "the lab has IPv4 only", "dual"),
    ("source", expect("from: web, to: n1, icmp: true, source: «own1"), "none of own, node, any, and no address", ""),
    ("source's version", expect("from: web, to: n1, icmp: true, source: «'fd00::1'"), "this entry is about IPv4", ""),
    ("source of a drop", expect("from: web, to: n1, icmp: true, verdict: drop, «source: own"), "is dropped", ""),
    ("port twice", expect("from: web, to: n1, tcp: [80, «80]"), "port 80 is in the list twice", ""),
]  # fmt: skip

TABLE = [
    pytest.param(text, message, hint, id=f"{group}: {name}")
    for group, rows in (("yaml", YAML), ("keys", KEYS), ("names", NAMES), ("ranges", RANGES),
                        ("addresses", ADDRESSES), ("routes", ROUTES), ("expect", EXPECT))
    for name, text, message, hint in rows
]  # fmt: skip


def problems_of(text: str) -> list[str]:
    with pytest.raises(TopologyError) as caught:
        loads(text, "lab.yaml")
    return caught.value.problems


@pytest.mark.parametrize(("marked", "message", "hint"), TABLE)
def test_one_problem_at_its_place(marked: str, message: str, hint: str) -> None:
    assert marked.count("«") == 1
    before = marked.partition("«")[0].split("\n")
    problems = problems_of(marked.replace("«", ""))
    assert len(problems) == 1, "\n".join(problems)
    first, *rest = problems[0].split("\n")
    assert first.startswith(f"lab.yaml:{len(before)}:{len(before[-1]) + 1}: "), problems[0]
    assert message in first
    helps = [line for line in rest if line.startswith("    help: ")]
    assert hint in "".join(helps), problems[0]
