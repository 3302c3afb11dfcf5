"""Install and uninstall: whole files only, the network last, others' files untouched, the same again is nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from podnet.cli.cni_command import command
from podnet.cni.install import bundle, contents, place
from podnet.cni.install.place import Content, InstallError
from podnet.cni.runtime import conflist

ROOT = Path(__file__).resolve().parents[4]


class Target:
    def __init__(self, folder: Path) -> None:
        self.bin, self.conf, self.systemd = folder / "bin", folder / "net.d", folder / "system"

    def install(self, *options: str) -> Result:
        folders = ["--bin-dir", self.bin, "--conf-dir", self.conf, "--systemd-dir", self.systemd]
        return CliRunner().invoke(command, ["install", *map(str, folders), *options])

    def uninstall(self) -> Result:
        return CliRunner().invoke(command, ["uninstall", "--bin-dir", str(self.bin)])

    def files(self) -> dict[str, bytes]:
        folders = (self.bin, self.conf, self.systemd)
        return {str(path): path.read_bytes() for each in folders if each.exists() for path in sorted(each.iterdir())}


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path)


@pytest.fixture(autouse=True)
def _compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "executable", lambda: contents.Executable(b"\x7fELF small"))


def test_placed_used_and_removed(target: Target) -> None:
    assert target.install().exit_code == 0
    names = {Path(path).name: path for path in target.files()}
    title = next(each for each in names if each.endswith(".bundle"))
    units = {"podnet-cni.service", "podnet-cni.socket"}
    assert set(names) == {"podnet", "podnet-python", title, place.LIST_NAME, "10-podnet.conflist"} | units
    for name, mode in {"podnet": 0o755, "podnet-python": 0o755, "10-podnet.conflist": 0o644}.items():
        assert os.stat(names[name]).st_mode & 0o777 == mode
    assert f"ExecStart={target.bin}/podnet-python serve" in Path(names["podnet-cni.service"]).read_text()
    found = conflist.load(str(target.conf))
    assert (found.name, [each.type for each in found.plugins]) == ("podnet", ["podnet"])
    # In a place where this checkout is not.
    done = subprocess.run(
        [names["podnet-python"], "cold"], env={"CNI_COMMAND": "VERSION"}, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert json.loads(done.stdout)["supportedVersions"][-1] == "1.1.0", done.stderr
    assert target.uninstall().exit_code == 0
    assert target.files() == {}


def test_a_second_time_changes_nothing(target: Target) -> None:
    assert target.install().exit_code == 0
    before = {path: os.stat(path).st_ino for path in target.files() if not path.endswith(place.LIST_NAME)}
    again = target.install()
    assert (again.exit_code, again.output) == (0, "nothing to do: all is in place\n")
    assert {path: os.stat(path).st_ino for path in before} == before


@pytest.mark.parametrize("name", ["bin/podnet", "bin/podnet-python", "system/podnet-cni.socket"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_others_have_placed_is_refused_by_name(target: Target, tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    if kind == "file":
        path.write_text("another's")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/nowhere")
    result = target.install()
    assert isinstance(result.exception, InstallError)
    assert f"in the way, and not placed by podnet: {path}" in str(result.exception)
    assert [each for each in tmp_path.rglob("*") if each != path] == [path.parent]


def test_an_edited_network_is_kept_and_stands_in_uninstalls_way(target: Target) -> None:
    target.install()
    path = target.conf / "10-podnet.conflist"
    edited = path.read_text().replace("cni0", "br-mine")
    path.write_text(edited)
    result = target.install("--subnet", "10.1.0.0/16")
    assert result.exit_code == 0
    assert f"kept {path}" in result.output
    assert path.read_text() == edited
    before = target.files()
    refused = target.uninstall()
    assert isinstance(refused.exception, InstallError)
    assert str(path) in str(refused.exception)
    assert target.files() == before
    path.unlink()
    assert target.uninstall().exit_code == 0
    assert target.files() == {}


def test_an_upgrade_replaces_and_removes_what_is_no_longer_of_it(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.install()
    old = set(target.files())
    running = (target.bin / "podnet").open("rb")
    monkeypatch.setattr(contents, "executable", lambda: contents.Executable(b"\x7fELF smaller"))
    monkeypatch.setattr(bundle, "MAGIC_NUMBER", b"another")
    assert target.install("--subnet", "10.2.0.0/24", "--subnet", "fd00:2::/64").exit_code == 0
    with running:
        assert running.read() == b"\x7fELF small"  # whoever executes the old one still has it
    new = set(target.files())
    assert len(new) == len(old)
    assert [Path(each).suffix for each in old ^ new] == [".bundle"] * 2
    plugin = conflist.load(str(target.conf)).plugins[0].raw
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]
    target.uninstall()
    assert target.files() == {}


def test_modules_of_another_python_are_compiled_again(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAGIC_NUMBER", b"another")
    target.install()
    done = subprocess.run(
        [target.bin / "podnet-python", "cold"], env={"CNI_COMMAND": "VERSION"}, input=b"", capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_cut_short_at_every_rename_it_can_be_done_again_and_undone(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[str, str], None] = os.rename
    for cut in range(9):
        count = 0

        def rename(source: str, path: str, cut: int = cut) -> None:
            nonlocal count
            if count == cut:
                raise OSError(5, "Input/output error", source, None, path)
            count += 1
            if path.endswith(".conflist"):
                # The network is last: all that it needs is there.
                assert {"podnet", "podnet-python"} <= set(os.listdir(target.bin))
            real(source, path)

        monkeypatch.setattr(os, "rename", rename)
        result = target.install()
        monkeypatch.setattr(os, "rename", real)
        if result.exception is None:
            assert (result.exit_code, count) == (0, cut)
            assert cut > 6
            break
        assert isinstance(result.exception, InstallError)
        assert not [path for path in target.files() if path.endswith(".tmp")]
        if cut % 2:
            assert target.install().exit_code == 0
        if cut:  # before the list is there, nothing is
            assert target.uninstall().exit_code == 0
        assert target.files() == {}
    else:
        pytest.fail("an installation has fewer steps than that")


def test_without_python_and_without_a_network(target: Target) -> None:
    assert target.install("--no-python", "--no-conflist").exit_code == 0
    assert {Path(path).name for path in target.files()} == {"podnet", place.LIST_NAME}


def test_without_a_compiler_the_python_program_is_the_plugin(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "executable", lambda: contents.Executable(b"", "no compiler"))
    result = target.install()
    assert (result.exit_code, "note: no compiler" in result.output) == (0, True)
    assert (target.bin / "podnet").read_bytes() == (target.bin / "podnet-python").read_bytes()
    with pytest.raises(InstallError, match="nothing to install"):
        contents.programs(str(target.bin), b"", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--subnet", "10.1.2.3/24"], "--subnet: Network has host bits set"),
        (["--subnet", "10.0.0.0/16", "--subnet", "10.0.1.0/24"], "overlaps"),
        (["--name", "a/b"], "must begin with a letter"),
        (["--bin-dir", "/tmp/with space"], "cannot name a path with white space"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_placed(target: Target, options: list[str], words: str) -> None:
    result = target.install(*options)
    assert words in str(result.exception) + result.output
    assert result.exit_code != 0
    assert target.files() == {}


def test_a_given_network_is_checked_and_placed_under_its_name(target: Target, tmp_path: Path) -> None:
    given = tmp_path / "20-mine.conflist"
    given.write_text('{"cniVersion": "1.0.0", "name": "mine", "plugins": []}')
    assert target.install("--conflist", str(given)).exit_code != 0
    given.write_text('{"cniVersion": "1.0.0", "name": "mine", "plugins": [{"type": "podnet"}]}')
    assert target.install("--conflist", str(given)).exit_code == 0
    assert (target.conf / given.name).read_bytes() == given.read_bytes()


def test_uninstall_says_where_it_has_looked(target: Target) -> None:
    result = target.uninstall()
    assert f"nothing is installed in {target.bin}" in str(result.exception)


def test_a_broken_list_is_named(target: Target) -> None:
    target.install()
    (target.bin / place.LIST_NAME).write_text("{")
    with pytest.raises(InstallError, match=place.LIST_NAME):
        place.installed(str(target.bin))


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    wanted = [Content(str(tmp_path / "a"), b"a"), Content("/proc/podnet/b", b"b")]
    with pytest.raises(InstallError, match="cannot write into /proc/podnet"):
        place.place(str(tmp_path), wanted)
    assert list(tmp_path.iterdir()) == []


def test_the_sample_is_what_install_writes() -> None:
    written = json.loads(contents.conflist("podnet", ["10.88.0.0/16"]))
    assert json.loads((ROOT / "cni/10-podnet.conflist").read_text()) == written


def test_the_bundle_holds_all_that_the_executables_import() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from podnet.cni.server.preload import preload; preload()\n"
        "import podnet.cni.server.serve, podnet.cni.server.client, podnet.cni.executable\n"
        "print(' '.join(name for name in sys.modules if name.partition('.')[0] == 'podnet'))\n"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", script, ROOT], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded <= set(bundle.packages())
    # And a server has all of the attach path before its first call.
    rooms = ("podnet.cni.plugin", "podnet.cni.spec", "podnet.ipam.ledger", "podnet.ipam.book")
    assert {name for name in bundle.packages() if name.startswith(rooms)} <= loaded


def test_the_list_names_every_file_with_its_digest(target: Target) -> None:
    target.install()
    listed: dict[str, Any] = json.loads((target.bin / place.LIST_NAME).read_text())["files"]
    files = {path: [sha256(data).hexdigest()] for path, data in target.files().items()}
    del files[str(target.bin / place.LIST_NAME)]
    assert listed == files
