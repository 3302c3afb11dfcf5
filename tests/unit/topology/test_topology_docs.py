"""docs/topology.md says what the loader does: its reference, its examples, its error messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from podnet.errors import TopologyError
from podnet.topology.load import loads
from podnet.topology.reference import BEGIN, fill, reference

DOCUMENT = (Path(__file__).parents[3] / "docs" / "topology.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```\n(?:\n```text\n(.*?)\n```)?", DOCUMENT, re.DOTALL | re.MULTILINE)


def test_the_reference_is_up_to_date() -> None:
    assert fill(DOCUMENT) == DOCUMENT, "run scripts/gen-topology-docs"


def test_the_reference_has_every_key() -> None:
    for key in ("podSubnet", "nodeCIDRMaskSizeIPv4", "subnets", "host", "podCIDR", "replicas", "command", "env", "via"):
        assert f"| `{key}` |" in reference()


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers"):
        fill(DOCUMENT.replace(BEGIN, ""))


@pytest.mark.parametrize("text", [text for text, output in BLOCKS if not output])
def test_examples_are_topologies(text: str) -> None:
    assert loads(text).nodes


@pytest.mark.parametrize(("text", "output"), [(text, output) for text, output in BLOCKS if output])
def test_examples_of_errors_show_the_real_output(text: str, output: str) -> None:
    with pytest.raises(TopologyError) as caught:
        loads(text, "lab.yaml")
    assert str(caught.value) == output


def test_there_are_examples_of_both() -> None:
    assert sum(bool(output) for _, output in BLOCKS) == 3
    assert len(BLOCKS) == 7


def test_every_lab_is_in_the_readme() -> None:
    root = Path(__file__).parents[3]
    told = (root / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in sorted((root / "topologies").glob("*.yaml")) if f"`{path.name}`" not in told] == []
