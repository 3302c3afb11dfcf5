"""A small CNI plugin that meets every requirement, and that can be given one defect: by its file name.

``plugin`` is correct; ``plugin--gc-nothing`` is the same program with the defect ``gc-nothing``. It is an interface
plugin (a veth, routed), a chained plugin (one rule) with ``"role": "chained"``, and an IPAM plugin where
``ipam.type`` is its own name. ``ipam.type: pool`` is its own pool; any other type is delegated to.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import select
import subprocess
import sys
import time
import zlib

NAME, _, DEFECT = os.path.basename(__file__).partition("--")
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
IDENTITY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
NEEDS = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}


class Refusal(Exception):  # noqa: N818 - it is what the plugin answers
    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.error = {"code": code, "msg": msg, "details": details}


def defect(*names: str) -> bool:
    return DEFECT in names


# Configuration


class Folded(dict):
    """An object whose keys are found exactly, or else without regard to case."""

    def get(self, key, default=None):
        if key in self:
            return self[key]
        if defect("case-sensitive"):
            return default
        return next((value for name, value in self.items() if name.lower() == key.lower()), default)

    def __missing__(self, key):
        return self.get(key)


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def environment() -> str:
    env = os.environ
    verb = env.get("CNI_COMMAND", "")
    if verb not in NEEDS:
        raise Refusal(4, f"unknown CNI_COMMAND: {verb}")
    if verb in {"ADD", "CHECK", "DEL"}:
        identity = env.get("CNI_CONTAINERID", "")
        if identity and not IDENTITY.fullmatch(identity):
            name = "container ID" if defect("container-id-unnamed") else "CNI_CONTAINERID"
            raise Refusal(4, f"invalid characters in {name}", identity)
        ifname = env.get("CNI_IFNAME", "")
        if len(ifname) > 15 or ifname in {".", ".."} or re.search(r"[/:\s]", ifname):
            raise Refusal(7 if defect("ifname-code") else 4, f"invalid CNI_IFNAME {ifname!r}")
    missing = [name for name in NEEDS[verb] if not env.get(name)]
    if missing:
        missing = missing[:1] if defect("missing-one") else missing
        raise Refusal(4, f"required env variables [{','.join(missing)}] missing")
    return verb


def configuration(verb: str) -> tuple[dict, bytes]:
    raw = sys.stdin.buffer.read()
    try:
        conf = json.loads(raw, object_pairs_hook=Folded)
    except ValueError as error:
        raise Refusal(999 if defect("json-code") else 6, f"cannot decode the configuration: {error}") from None
    version = conf.get("cniVersion", "0.1.0")

    def check_name() -> None:
        if not conf.get("name"):
            raise Refusal(7, "missing network name")
        if not IDENTITY.fullmatch(conf.get("name")):
            raise Refusal(7, "invalid characters found in network name")

    def check_version() -> None:
        if version not in VERSIONS:
            raise Refusal(1, "incompatible CNI versions", f"config is {version}, plugin supports {VERSIONS}")

    for check in (check_version, check_name) if defect("name-after-version") else (check_name, check_version):
        check()
    since = {"CHECK": (0, 4, 0), "GC": (1, 1, 0), "STATUS": (1, 1, 0)}.get(verb, (0,))
    if number(version) < since and not defect(f"{verb.lower()}-any-version"):
        raise Refusal(1, f"config version does not allow {verb}")
    return conf, raw


# The pool of addresses: a file for each, below dataDir


@contextlib.contextmanager
def pool(conf: dict):
    folder = os.path.join(conf["ipam"].get("dataDir"), conf.get("name"))
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w") as lock:
        if not defect("no-lock"):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def reservations(folder: str) -> dict[str, tuple[str, str]]:
    found = {}
    for name in os.listdir(folder):
        if name != "lock":
            with open(os.path.join(folder, name)) as file:
                identity, _, ifname = file.read().partition("\n")
            found[name] = (identity, ifname)
    return found


def wanted_addresses(conf: dict) -> list[str]:
    runtime = conf.get("runtimeConfig", Folded()).get("ips") or []
    args = conf.get("args", Folded()).get("cni", Folded()).get("ips") or []
    pairs = dict(pair.split("=", 1) for pair in os.environ.get("CNI_ARGS", "").split(";") if "=" in pair)
    by_env = [pairs["IP"]] if "IP" in pairs else []
    chosen = runtime or (by_env + args if defect("cni-args-win") else args or by_env)
    return [] if defect("ignores-ips") and runtime else [each.split("/")[0] for each in chosen[:1]]


def reserve(conf: dict, key: tuple[str, str]) -> dict:
    subnet = ipaddress.ip_network(conf["ipam"].get("subnet"))
    hosts = [str(each) for each in subnet.hosts()]
    gateway, free = hosts[0], hosts[1:]
    with pool(conf) as folder:
        taken = reservations(folder)
        if key in taken.values() and not defect("twice"):
            raise Refusal(101, f"{key} has an address")
        wanted = wanted_addresses(conf)
        if defect("no-lock"):
            time.sleep(0.3)
        chosen = next((each for each in wanted or free if each not in taken), None)
        if chosen is None:
            raise Refusal(100, "no address is left", str(subnet))
        with open(os.path.join(folder, chosen), "w") as file:
            file.write("\n".join(key))
    ips = [{"address": f"{chosen}/{subnet.prefixlen}", "gateway": gateway}]
    return {"ips": ips, "routes": [{"dst": "0.0.0.0/0", "gw": gateway}]}


def release(conf: dict, stale) -> None:
    with pool(conf) as folder:
        for name, owner in reservations(folder).items():
            if stale(owner):
                os.unlink(os.path.join(folder, name))


# Delegation


def is_own_pool(conf: dict) -> bool:
    return conf.get("ipam", Folded()).get("type") in {"pool", os.path.basename(__file__)}


def delegate(conf: dict, raw: bytes, verb: str) -> dict:
    kind = conf.get("ipam", Folded()).get("type")
    if not kind:
        return {}
    for folder in os.environ["CNI_PATH"].split(":"):
        path = os.path.join(folder, kind)
        if folder and os.path.isfile(path):
            break
    else:
        raise Refusal(102, f"failed to find plugin {kind!r} in path {os.environ['CNI_PATH']}")
    env = {**os.environ, "CNI_COMMAND": verb}
    if defect("delegate-environment"):
        env.pop("CNI_ARGS", None)
    if defect("delegate-configuration"):
        raw = json.dumps({key: value for key, value in conf.items() if key != "args"}).encode()
    done = subprocess.run([path], input=raw, env=env, capture_output=True)
    if not defect("delegate-stderr"):
        sys.stderr.write(done.stderr.decode())
    if done.returncode:
        error = json.loads(done.stdout)
        code = 999 if defect("delegate-code") else error["code"]
        raise Refusal(code, error["msg"], error.get("details", ""))
    return json.loads(done.stdout, object_pairs_hook=Folded) if done.stdout.strip() else {}


# The kernel


def tool(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode and check:
        raise Refusal(103, f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout if done.returncode == 0 else ""


def inside(netns: str, *argv: str, check: bool = True) -> str:
    return tool("nsenter", f"--net={netns}", *argv, check=check)


def token(network: str, key: tuple[str, str]) -> str:
    return digest("\0".join((network, *key)), 11)


def digest(text: str, length: int) -> str:
    """Hexadecimal digits, at most 16; not by hashlib, whose import takes a fifth of a call."""
    return f"{zlib.crc32(text.encode()):08x}{zlib.crc32(text.encode()[::-1]):08x}"[:length]


def table_of(network: str, key: tuple[str, str]) -> str:
    # The network and the owner are in the name, so that GC finds what is stale without any other state.
    return f"cni_{digest(network, 8)}_{digest(chr(0).join(key), 12)}"


def make_rule(network: str, key: tuple[str, str], source: str) -> None:
    table = table_of(network, key)
    tool("nft", f"add table ip {table}; add chain ip {table} nat {{ type nat hook postrouting priority 100; }}; "
         f"add rule ip {table} nat ip saddr {source} ip daddr != {source} masquerade")  # fmt: skip


def remove_host(network: str, key: tuple[str, str]) -> None:
    tool("ip", "link", "delete", f"vp{token(network, key)}", check=False)
    tool("nft", "delete", "table", "ip", table_of(network, key), check=False)


# The verbs


def shaped(result: dict, version: str) -> dict:
    if number(version) >= (1, 0, 0) or (defect("new-shape-in-0.4.0") and version == "0.4.0"):
        return {"cniVersion": version, **result}
    if number(version) >= (0, 3, 0):
        ips = [{"version": "4", **each} for each in result.get("ips", [])]
        interfaces = [{k: v for k, v in each.items() if k != "mtu"} for each in result.get("interfaces", [])]
        return {"cniVersion": version, **({"interfaces": interfaces} if interfaces else {}), "ips": ips,
                "routes": result.get("routes", []), "dns": {}}  # fmt: skip
    first = result["ips"][0]
    return {"cniVersion": version, "ip4": {"ip": first["address"], "gateway": first["gateway"],
            "routes": result.get("routes", [])}, "dns": {}}  # fmt: skip


def add_chained(conf: dict, key: tuple[str, str]) -> dict:
    previous = conf.get("prevResult")
    if previous is None and not defect("chained-alone"):
        raise Refusal(7, "must be called as chained plugin")
    previous = previous or {"cniVersion": conf.get("cniVersion"), "interfaces": [], "ips": [], "routes": []}
    if conf.get("runtimeConfig", Folded()).get("mark"):
        make_rule(conf.get("name"), key, "192.0.2.1")
    return {**previous, "routes": []} if defect("drops-previous") else previous


def add(conf: dict, raw: bytes, key: tuple[str, str]) -> dict:
    version, network, netns = conf.get("cniVersion", "0.1.0"), conf.get("name"), os.environ["CNI_NETNS"]
    if conf.get("role") == "chained":
        return add_chained(conf, key)
    if conf.get("ipam", Folded()).get("type") == os.path.basename(__file__):
        result = reserve(conf, key)
        if defect("ipam-interfaces"):
            result = {**result, "interfaces": [{"name": key[1], "sandbox": netns}]}
        return shaped(result, version)
    if not os.path.exists(netns):
        if defect("leaks-address"):
            reserve(conf, key)
        raise Refusal(3, f"CNI_NETNS {netns} does not exist")
    if os.stat(netns).st_ino == os.stat("/proc/self/ns/net").st_ino and not defect("own-namespace"):
        raise Refusal(8, "CNI_NETNS is the plugin's own namespace")
    if inside(netns, "ip", "link", "show", key[1], check=False):
        if not defect("replaces-interface"):
            raise Refusal(104, f"{key[1]} exists")
        inside(netns, "ip", "link", "delete", key[1])
    try:
        given = reserve(conf, key) if is_own_pool(conf) else delegate(conf, raw, "ADD")
        if not given.get("ips"):
            raise Refusal(105, "IPAM gave no address")
        return shaped(attach(conf, key, netns, given), version)
    except Refusal:
        if not defect("leaks-veth"):
            remove_host(network, key)
            inside(netns, "ip", "link", "delete", key[1], check=False)
        if is_own_pool(conf):
            release(conf, lambda owner: owner == key)
        elif not defect("no-delegate-delete"):
            with contextlib.suppress(Refusal):
                delegate(conf, raw, "DEL")
        raise


def attach(conf: dict, key: tuple[str, str], netns: str, given: dict) -> dict:
    host, ifname, network = f"vp{token(conf.get('name'), key)}", key[1], conf.get("name")
    ip = given["ips"][0]
    address = ip["address"].split("/")[0]
    tool("ip", "link", "add", host, "type", "veth", "peer", "name", f"vq{host[2:]}")
    tool("ip", "link", "set", f"vq{host[2:]}", "netns", netns, "name", ifname)
    mac = conf.get("runtimeConfig", Folded()).get("mac")
    if mac and not defect("ignores-mac"):
        inside(netns, "ip", "link", "set", ifname, "address", mac)
    inside(netns, "ip", "addr", "add", ip["address"], "dev", ifname)
    inside(netns, "ip", "link", "set", ifname, "up")
    tool("ip", "link", "set", host, "up")
    tool("ip", "addr", "add", f"{ip['gateway']}/32", "dev", host)
    tool("ip", "route", "replace", f"{address}/32", "dev", host)
    links = {each["ifname"]: each for each in json.loads(inside(netns, "ip", "-j", "link"))}
    routes = []
    for route in given.get("routes") or []:
        gateway = route.get("gw") or ip["gateway"]
        metric = str(100 + links[ifname]["ifindex"])
        inside(netns, "ip", "route", "add", route["dst"], "via", gateway, "dev", ifname, "metric", metric)
        routes.append({"dst": route["dst"], "gw": gateway})
    make_rule(network, key, address)
    own = {each["ifname"]: each for each in json.loads(tool("ip", "-j", "link"))}
    sandbox = os.path.realpath(netns) if defect("sandbox-resolved") else netns
    interfaces = [{"name": host, "mac": own[host]["address"]},
                  {"name": ifname, "mac": links[ifname]["address"], "sandbox": sandbox}]  # fmt: skip
    if number(conf.get("cniVersion", "0.1.0")) >= (1, 1, 0):
        interfaces[1]["mtu"] = 9000 if defect("mtu-invented") else links[ifname]["mtu"]
    index = 1
    if defect("host-interface-unlisted"):
        interfaces, index = interfaces[1:], 0
    return {"interfaces": interfaces, "ips": [{"interface": index, **ip}], "routes": routes}


def delete(conf: dict, raw: bytes, key: tuple[str, str]) -> None:
    network, netns = conf.get("name"), os.environ.get("CNI_NETNS", "")
    if defect("delete-needs-netns") and not os.path.exists(netns):
        raise Refusal(106, f"no namespace {netns!r}")
    if conf.get("role") == "chained":
        tool("nft", "delete", "table", "ip", table_of(network, key), check=False)
        if defect("deletes-interface"):
            inside(netns, "ip", "link", "delete", key[1], check=False)
        return
    if conf.get("ipam", Folded()).get("type") == os.path.basename(__file__):
        release(conf, lambda owner: owner == key)
        return
    there = bool(netns and os.path.exists(netns) and inside(netns, "ip", "link", "show", key[1], check=False))
    if defect("delete-once") and os.path.exists(netns) and not there:
        raise Refusal(107, f"no interface {key[1]}")
    failure = None
    if is_own_pool(conf):
        by_container = defect("releases-container")
        if there or not defect("address-needs-interface"):
            release(conf, lambda owner: owner[0] == key[0] if by_container else owner == key)
    else:
        try:
            delegate(conf, raw, "DEL")
        except Refusal as refusal:
            failure = refusal
            if defect("delegate-error-stops"):
                raise
    if there:
        inside(netns, "ip", "link", "delete", key[1], check=False)
    tool("ip", "link", "delete", f"vp{token(network, key)}", check=False)
    if there or not defect("rules-need-interface"):
        tool("nft", "delete", "table", "ip", table_of(network, key), check=False)
    if failure is not None and not defect("delegate-error-lost"):
        raise failure


def check(conf: dict, raw: bytes, key: tuple[str, str]) -> None:
    previous, netns, network = conf.get("prevResult"), os.environ["CNI_NETNS"], conf.get("name")
    if previous is None:
        if defect("check-without-previous"):
            return
        raise Refusal(7, "Required prevResult missing")
    if conf.get("ipam", Folded()).get("type") == os.path.basename(__file__):
        check_reservation(conf, key)
        return
    if not tool("nft", "list", "table", "ip", table_of(network, key), check=False) and not (
        defect("check-ignores-rules")
        or (conf.get("role") == "chained" and not conf.get("runtimeConfig", Folded()).get("mark"))
    ):
        raise Refusal(108, "the masquerade rule is missing")
    if conf.get("role") == "chained":
        return
    rows = [each for each in json.loads(inside(netns, "ip", "-j", "addr")) if each["ifname"] == key[1]]
    if not rows or "UP" not in rows[0]["flags"]:
        raise Refusal(109, f"{key[1]} is missing or down")
    own = [each for each in previous["interfaces"] if each["name"] == key[1] and each.get("sandbox")]
    if own and own[0]["mac"] != rows[0]["address"] and not defect("check-ignores-mac"):
        raise Refusal(109, f"{key[1]} has another hardware address")
    held = [f"{each['local']}/{each['prefixlen']}" for each in rows[0]["addr_info"] if each["family"] == "inet"]
    wanted = [each["address"] for each in previous["ips"]]
    if not set(wanted) <= set(held):
        if not defect("check-repairs"):
            raise Refusal(109, f"addresses {held}, not {wanted}")
        inside(netns, "ip", "addr", "add", wanted[0], "dev", key[1])
        raise Refusal(109, "the address was missing")
    if defect("check-strict") and set(wanted) != set(held):
        raise Refusal(109, f"addresses {held}, not {wanted}")
    table = json.loads(inside(netns, "ip", "-j", "route"))
    for route in previous.get("routes") or []:
        dst = "default" if route["dst"] == "0.0.0.0/0" else route["dst"]
        if not any(each["dst"] == dst and each["dev"] == key[1] for each in table) and not defect(
            "check-ignores-routes"
        ):
            raise Refusal(109, f"no route to {dst}")
    if is_own_pool(conf):
        check_reservation(conf, key)
    elif not defect("check-no-delegate"):
        delegate(conf, raw, "CHECK")


def check_reservation(conf: dict, key: tuple[str, str]) -> None:
    with pool(conf) as folder:
        if key not in reservations(folder).values() and not defect("check-ignores-reservation"):
            raise Refusal(110, "the address is not reserved")


def collect(conf: dict, raw: bytes) -> None:
    keys = (
        ["cni.dev/valid-attachments"]
        if defect("gc-new-key-only")
        else ["cni.dev/valid-attachments", "cni.dev/attachments"]
    )
    listed = next((conf[key] for key in keys if key in conf), None)
    if listed is None and not defect("gc-no-list-is-empty"):
        if defect("gc-new-key-only"):
            return
        raise Refusal(7, "cni.dev/valid-attachments is missing")
    valid = {(each["containerID"], each["ifname"]) for each in listed or []}
    if defect("gc-nothing"):
        return
    if defect("gc-all"):
        valid = set()
    if defect("gc-by-container"):
        containers = {identity for identity, _ in valid}
        stale = lambda owner: owner[0] not in containers  # noqa: E731
    else:
        stale = lambda owner: owner not in valid  # noqa: E731
    network = conf.get("name")
    kept = {table_of(network, key) for key in valid}
    prefix = "cni_" if defect("gc-all-networks") else table_of(network, ("", ""))[:13]
    if conf.get("ipam", Folded()).get("type") != os.path.basename(__file__):
        ours = []
        if is_own_pool(conf):
            with pool(conf) as folder:
                ours = [owner for owner in reservations(folder).values() if stale(owner)]
        for owner in ours:
            remove_host(network, owner)
        if not defect("gc-by-container"):
            for row in json.loads(tool("nft", "-j", "list", "tables"))["nftables"]:
                name = row.get("table", {}).get("name", "")
                if name.startswith(prefix) and name not in kept:
                    tool("nft", "delete", "table", "ip", name)
    if conf.get("ipam"):
        if is_own_pool(conf):
            release(conf, stale)
        elif not defect("gc-not-forwarded"):
            delegate(conf, raw, "GC")


def status(conf: dict, raw: bytes) -> None:
    if not conf.get("ipam"):
        return
    if not is_own_pool(conf):
        if not defect("status-not-forwarded"):
            delegate(conf, raw, "STATUS")
        return
    with pool(conf) as folder:
        room = ipaddress.ip_network(conf["ipam"].get("subnet")).num_addresses - 3
        if len(reservations(folder)) >= room and not defect("status-always-ready"):
            raise Refusal(50, "no address is left")


def main() -> int:
    version = "1.1.0"
    try:
        if not os.environ.get("CNI_COMMAND"):
            sys.stderr.write("a small CNI plugin\nCNI protocol versions supported: " + ", ".join(VERSIONS) + "\n")
            return 0
        verb = environment()
        if verb == "VERSION":
            # It is asked by hand, too: whoever has nothing to say in 0.2 s will not say anything.
            waits = None if defect("version-waits") else 0.2
            asked = sys.stdin.read() if select.select([0], [], [], waits)[0] else ""
            with contextlib.suppress(ValueError, TypeError):
                version = json.loads(asked)["cniVersion"]
            version = "1.1.0" if defect("version-fixed") else version
            print(json.dumps({"cniVersion": version, "supportedVersions": VERSIONS}))
            return 0
        conf, raw = configuration(verb)
        version = conf.get("cniVersion", "0.1.0")
        key = (os.environ.get("CNI_CONTAINERID", ""), os.environ.get("CNI_IFNAME", ""))
        if verb == "ADD":
            print(json.dumps(add(conf, raw, key)))
        elif verb == "DEL":
            delete(conf, raw, key)
        elif verb == "CHECK":
            check(conf, raw, key)
        elif verb == "GC":
            collect(conf, raw)
        else:
            status(conf, raw)
        if defect(f"{verb.lower()}-talks"):
            print("{}")
    except Refusal as refusal:
        error = refusal.error if defect("error-without-version") else {"cniVersion": version, **refusal.error}
        print(json.dumps(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
