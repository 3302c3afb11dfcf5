"""The capabilities of CONVENTIONS.md: ips, ipRanges, mac, dns, aliases; the runtime's word before the file's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("runtime", "own", "expected"),
    [
        ({}, {}, {"nameservers": ["10.9.9.9"], "search": ["of.ipam"]}),
        ({}, {"nameservers": ["10.1.1.1"]}, {"nameservers": ["10.1.1.1"]}),
        ({"Servers": [], "Searches": [], "Options": []}, {"nameservers": ["10.1.1.1"]}, {"nameservers": ["10.1.1.1"]}),
        (
            {"servers": ["10.0.0.10"], "searches": ["svc.local"], "options": ["ndots:5"]},
            {"nameservers": ["10.1.1.1"], "domain": "own"},
            {"nameservers": ["10.0.0.10"], "search": ["svc.local"], "options": ["ndots:5"]},
        ),
        ({"Servers": ["10.0.0.10"]}, {}, {"nameservers": ["10.0.0.10"]}),  # as containerd writes it
    ],
)
def test_dns(
    host: Any, conf: dict[str, Any], tmp_path: Any, runtime: dict[str, Any], own: dict[str, Any], expected: Any
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.9.9.9\nsearch of.ipam\n")
    conf["ipam"]["resolvConf"] = str(tmp_path / "resolv.conf")
    assert host.add(conf | {"dns": own, "runtimeConfig": {"dns": runtime}})["dns"] == expected


@pytest.mark.parametrize("aliases", [["db", "db.prod"], {"net": ["db", "db.prod"], "other": ["x"]}])
def test_aliases_are_kept_until_del(host: Any, conf: dict[str, Any], aliases: Any) -> None:
    """A list by the conventions, a map from the network's name to it as podman sends it."""
    file = host.state / "hosts/net"
    result = host.add(conf | {"runtimeConfig": {"aliases": aliases}})
    kept = {row[3]: json.loads(row[4]) for row in host.ledger("part")}
    assert kept["aliases"] == {"names": ["db", "db.prod"], "addresses": ["10.1.2.2", "fd00:1::2"]}
    check = conf | {"runtimeConfig": {"aliases": aliases}, "prevResult": result}
    assert host.call("CHECK", check) == (0, None)
    # An alias with a line end in it must not become a line, and a second pod of the same name is found too.
    host.add(conf | {"runtimeConfig": {"aliases": ["db", "x\n10.1.2.9 evil", "#", ""]}}, "c2")
    assert resolved(file, "db") == {"10.1.2.2", "10.1.2.3", "fd00:1::2", "fd00:1::3"}
    assert resolved(file, "db.prod") == {"10.1.2.2", "fd00:1::2"}
    assert "evil" not in file.read_text()
    file.write_text(file.read_text().replace("10.1.2.2 ", "10.1.2.7 "))
    code, error = host.call("CHECK", check)
    assert (code, f"{file} lacks '10.1.2.2 db db.prod'" in error["details"]) == (1, True)
    host.delete(conf, CNI_NETNS="")
    assert resolved(file, "db") == {"10.1.2.3", "fd00:1::3"}
    assert resolved(file, "db.prod") == set()
    assert host.call("GC", conf | {"cni.dev/valid-attachments": []}) == (0, None)
    assert host.ledger("part") == []
    assert not file.exists()


def resolved(hosts: Path, name: str) -> set[str]:
    """What the C library finds for a name where this is /etc/hosts."""
    look = f"mount --bind {hosts} /etc/hosts && getent ahosts {name}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", look], capture_output=True, text=True, check=False)
    return {line.split()[0] for line in done.stdout.splitlines()}


def test_ips_ip_ranges_and_mac(host: Any, conf: dict[str, Any]) -> None:
    runtime = {
        "ipRanges": [[{"subnet": "10.7.0.0/24", "gateway": "10.7.0.254"}]],
        "ips": ["10.7.0.77/24"],
        "mac": "02:00:00:00:00:77",
    }
    conf["ipam"] = {"type": "host-local"}
    args = {"cni": {"ips": ["10.7.0.5"], "mac": "02:00:00:00:00:55"}}
    conf |= {"args": args}
    result = host.add(conf | {"runtimeConfig": runtime}, CNI_ARGS="IP=10.7.0.6;MAC=02:00:00:00:00:66")
    assert result["ips"] == [{"interface": 2, "address": "10.7.0.77/24", "gateway": "10.7.0.254"}]
    assert host.link("eth0", "c1")["address"] == result["interfaces"][2]["mac"] == "02:00:00:00:00:77"
    without = {"ipRanges": runtime["ipRanges"]}
    result = host.add(conf | {"runtimeConfig": without}, "c2", CNI_ARGS="IP=10.7.0.6;MAC=02:00:00:00:00:66")
    assert (result["ips"][0]["address"], result["interfaces"][2]["mac"]) == ("10.7.0.5/24", "02:00:00:00:00:55")
