"""The pytest plugin in a project of its own: docs/example, and what is said where a test fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab_kernel import namespaces

pytestmark = pytest.mark.kernel

EXAMPLE = Path(__file__).parents[3] / "docs/example"


def pytest_in(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(EXAMPLE / "topology.yaml", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return tmp_path


def test_the_example_passes_in_parallel_and_leaves_nothing(project: Path) -> None:
    shutil.copy(EXAMPLE / "test_shop.py", project)
    before = namespaces()
    assert "5 passed" in pytest_in(project, "-n", "2", "--strict-markers")
    assert namespaces() == before


def test_a_failure_shows_the_way_and_the_lab_is_taken_down(project: Path) -> None:
    (project / "test_it.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.podnet('topology.yaml', scope='session')\n"
        "def test_fails(lab):\n    assert lab.pod('web').can_reach('db', tcp=22)\n"
        "def test_raises(lab):\n    lab.expect('web', 'db', verdict='drop')\n"
        "def test_asks_wrongly(lab):\n    lab.pod('wep')\n"
    )
    before = namespaces()
    out = pytest_in(project)
    assert "3 failed" in out
    assert "web -> db tcp/22 ipv4: expected reach, observed refuse (TCP reset)" in out
    assert "web eth0 out" in out
    assert "web -> db icmp ipv4: expected drop, observed reach" in out
    assert "has no wep: there are node1, node2, web, db" in out
    assert namespaces() == before


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("", "the fixture lab needs @pytest.mark.podnet"),
        ("@pytest.mark.podnet('nope.yaml')", "nope.yaml"),
        ("@pytest.mark.podnet('topology.yaml', scope='week')", "scope is one of session, module, function, not 'week'"),
    ],
)
def test_a_wrong_marker_is_told_without_a_traceback(project: Path, marker: str, says: str) -> None:
    (project / "test_it.py").write_text(f"import pytest\n{marker}\ndef test_it(lab):\n    pass\n")
    out = pytest_in(project)
    assert says in out
    assert "Traceback" not in out


def test_the_plugin_costs_nothing_where_no_lab_is_asked_for(project: Path) -> None:
    (project / "test_it.py").write_text(
        "import sys\ndef test_it():\n    assert 'podnet.lab' not in sys.modules and 'click' not in sys.modules\n"
    )
    assert "1 passed" in pytest_in(project)
