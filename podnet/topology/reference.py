"""The reference of the topology file as Markdown tables, made from the JSON schema.

``scripts/gen-topology-docs`` puts it between the markers of ``docs/topology.md``; a test says when that is due.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from podnet.topology import formats
from podnet.topology.schema import json_schema

__all__ = ["BEGIN", "END", "fill", "reference"]

BEGIN = "<!-- reference: made by scripts/gen-topology-docs from the schema; do not edit by hand -->"
END = "<!-- end of the reference -->"

# heading, name in the JSON schema; in the order in which a reader meets them
_SECTIONS = (
    ("The top of the file", ""),
    ("`networking`", "Networking"),
    ("`networking.vxlan`", "Vxlan"),
    ("`networking.wireguard`", "Wireguard"),
    ("`networking.ipip`", "Ipip"),
    ("`networking.bgp`", "Bgp"),
    ("`underlay`", "Underlay"),
    ("`underlay.subnets`", "Subnet"),
    ("`underlay.routers`", "Router"),
    ("`nodes`", "Node"),
    ("`pods`", "Pod"),
    ("`pods.containers`", "Container"),
    ("`env` as a list", "EnvVar"),
    ("`clients`", "Client"),
    ("`routes`", "Route"),
    ("`impair`", "Impairment"),
    ("`expect`", "Expectation"),
    ("Selector", "Selector"),
)
_FORMS = {
    formats.NAME_PATTERN: "name",
    formats.CIDR_PATTERN: "network",
    formats.INTERFACE_PATTERN: "interface name",
    formats.ADDRESS_PATTERN: "address",
    formats.DESTINATION_PATTERN: "network, address, `default`",
    formats.PERCENTAGE_PATTERN: "percentage",
    formats.DURATION_PATTERN: "time",
    formats.RATE_PATTERN: "rate",
    formats.SOURCE_PATTERN: "`own`, `node`, `any`, address",
}
_PLURALS = {"address": "addresses", "text": "texts"}
_MAPPINGS = ("Networking", "Vxlan", "Wireguard", "Ipip", "Bgp", "Underlay")
_WORDS = {"EnvVar": "variable"} | dict.fromkeys(_MAPPINGS, "mapping")


def reference() -> str:
    """All sections: heading, what it is, and a table of its keys."""
    schema = json_schema()
    parts = []
    for heading, name in _SECTIONS:
        section = schema["$defs"][name] if name else schema
        rows = [_row(key, value, key in section.get("required", ())) for key, value in section["properties"].items()]
        table = "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows])
        parts.append(f"### {heading}\n\n{section['description']}\n\n{table}")
    return "\n\n".join(parts)


def fill(document: str) -> str:
    """The document with the reference between its markers. Raises ``ValueError`` where they are missing."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no markers for the reference: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _row(key: str, value: dict[str, Any], required: bool) -> str:
    default = "**required**" if required else ""
    if value.get("default") not in (None, [], {}) and "$ref" not in value:
        default = f"`{json.dumps(value['default']).strip(chr(34)) or chr(34) * 2}`"
    return f"| `{key}` | {_kind(value)} | {default} | {value['description']} |".replace("|  |", "| |")


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return _link(value["$ref"])
    if "oneOf" in value:
        return _one_of(value["oneOf"])
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return ", ".join(f"`{word}`" for word in value["enum"])
    if isinstance(value["type"], list):
        return "text, number or boolean"
    if value["type"] == "array":
        items = value["items"]
        plural = _PLURALS.get(_kind(items), _kind(items))
        return f"list of {_link(items['$ref'], many=True) if '$ref' in items else plural}"
    if value["type"] == "integer":
        return f"{value['minimum']} to {value['maximum']}"
    text = _FORMS.get(value.get("pattern", ""), "text")
    return {"boolean": "`true`, `false`", "object": "mapping", "string": text}[value["type"]]


def _one_of(choices: list[dict[str, Any]]) -> str:
    single = [_kind(choice) for choice in choices if choice.get("type") != "array"]
    lists = [choice["items"] for choice in choices if choice.get("type") == "array"]
    if lists and _kind(lists[0]) == ", ".join(single):
        return ", ".join([*single, "a list of those"])
    return " or ".join(_kind(choice) for choice in choices)


def _link(ref: str, many: bool = False) -> str:
    name = ref.rpartition("/")[2]
    heading = next(heading for heading, of in _SECTIONS if of == name)
    anchor = "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")
    return f"[{_WORDS.get(name, name.lower())}{'s' if many else ''}](#{anchor})"


def main(arguments: list[str]) -> int:
    """Fill the document in; with ``--check`` only say whether that would change it."""
    path = Path(next(a for a in arguments if a != "--check"))
    old = path.read_text(encoding="utf-8")
    new = fill(old)
    if "--check" in arguments:
        if old != new:
            sys.stderr.write(f"{path} is not up to date: run scripts/gen-topology-docs\n")
        return int(old != new)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
