"""podnet cni: what it prints, where, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from podnet.cli.cni_command import command
from podnet.errors import PodnetError

if TYPE_CHECKING:
    from conftest import FakePlugins

RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "cni0", "mac": "02:00:00:00:00:01"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
    "ips": [{"interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1"}],
}


@dataclass
class Command:
    """``podnet cni`` with the folders of the test."""

    folder: Path
    plugins: FakePlugins

    def __call__(self, *arguments: str, conf: bool = True, netns: bool = True) -> Result:
        verb, *rest = arguments
        options = ["--path", str(self.plugins.folder), "--cache-dir", str(self.folder / "cache")]
        if conf:
            options += ["--conf", str(self.folder / "net.d")]
        if netns and verb in ("add", "del", "check"):
            options += ["--netns", str(self.folder / "netns")]
        done = CliRunner().invoke(command, [verb, *options, *rest], prog_name="podnet cni")
        # What cli.main does with an error.
        if isinstance(done.exception, PodnetError):
            done.exit_code = done.exception.exit_code
            done.stderr_bytes = (done.stderr_bytes or b"") + str(done.exception).encode()
        elif done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    def cached(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "cache").rglob("*") if path.is_file())


@pytest.fixture
def cni(tmp_path: Path, plugins: FakePlugins) -> Command:
    plugins.make("p", ADD={"stdout": json.dumps(RESULT)}, VERSION={"stdout": json.dumps(
        {"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]})})  # fmt: skip
    (tmp_path / "netns").touch()
    (tmp_path / "net.d").mkdir()
    configure(tmp_path, {"cniVersion": "1.1.0"})
    return Command(tmp_path, plugins)


def configure(folder: Path, change: dict[str, Any]) -> None:
    value = {"name": "net", "plugins": [{"type": "p", "capabilities": {"mac": True}}]} | change
    (folder / "net.d" / "10-net.conflist").write_text(json.dumps(value), encoding="utf-8")


def failing(code: int) -> dict[str, Any]:
    return {"stdout": json.dumps({"code": code, "msg": "why", "details": "more"}), "code": 1}


def test_add_prints_the_result(cni: Command) -> None:
    done = cni("add", "-o", "json", "--container-id", "c1")
    assert (done.exit_code, json.loads(done.stdout), done.stderr) == (0, RESULT, "")
    assert cni.cached() == ["net-c1-eth0"]
    text = cni("add", "--container-id", "c2").stdout
    assert "eth0" in text
    assert "10.0.0.2/24" in text


def test_add_check_del_need_only_the_namespace(cni: Command) -> None:
    assert (
        cni("add", "--args", "IgnoreUnknown=1;K=v", "--capability-args", '{"mac":"02:00:00:00:00:02"}').exit_code == 0
    )
    (cni.folder / "net.d" / "10-net.conflist").unlink()
    assert cni("check", conf=False).exit_code == 0
    done = cni("del", "-o", "json", conf=False)
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (0, True)
    added, checked, deleted = cni.plugins.calls
    for call in (checked, deleted):
        assert call["environ"] == added["environ"] | {"CNI_COMMAND": call["command"]}
        assert call["config"] == added["config"] | {"prevResult": RESULT}
    assert added["environ"]["CNI_ARGS"] == "IgnoreUnknown=1;K=v"
    assert added["config"]["runtimeConfig"] == {"mac": "02:00:00:00:00:02"}
    assert cni.cached() == []


def test_del_without_namespace_or_cache(cni: Command) -> None:
    assert cni("del", "--container-id", "c1", netns=False).exit_code == 0
    assert cni.plugins.calls[0]["environ"]["CNI_NETNS"] == ""


def test_del_knows_that_the_namespace_has_gone(cni: Command) -> None:
    cni("add", "--container-id", "c1")
    (cni.folder / "netns").unlink()
    assert cni("del", "--container-id", "c1", netns=False, conf=False).exit_code == 0
    assert cni.plugins.calls[-1]["environ"]["CNI_NETNS"] == ""


@pytest.mark.parametrize(("verb", "called"), [("check", "CHECK"), ("del", "DEL"), ("gc", "GC"), ("status", "STATUS")])
@pytest.mark.parametrize("output", ["text", "json"])
def test_e1_a_plugins_error_is_printed(cni: Command, verb: str, called: str, output: str) -> None:
    cni.plugins.make("p", **{called: failing(11)})
    done = cni(verb, "-o", output)
    assert done.exit_code == 1
    error = json.loads(done.stdout)
    assert (error["cniVersion"], error["code"]) == ("1.1.0", 11)
    assert f"plugin p failed ({called}): why; more" in done.stderr


@pytest.mark.parametrize(
    ("code", "arguments", "calls"),
    [(7, [], ["ADD p", "DEL p"]), (3, [], ["ADD p"]), (7, ["--keep"], ["ADD p"])],
)
def test_a8_a_failed_add_is_cleaned_up(cni: Command, code: int, arguments: list[str], calls: list[str]) -> None:
    cni.plugins.make("p", ADD=failing(code))
    done = cni("add", *arguments)
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {"cniVersion": "1.1.0", "code": code, "msg": "why", "details": "more"}
    assert cni.plugins.order == calls
    assert cni.cached() == []


def test_a8_a_clean_up_that_fails_does_not_hide_the_error(cni: Command) -> None:
    cni.plugins.make("p", ADD=failing(7), DEL=failing(11))
    done = cni("add")
    assert json.loads(done.stdout)["code"] == 7
    assert "after the failed ADD: plugin p failed (DEL): why; more" in done.stderr


def test_a11_what_is_attached_is_not_attached_again(cni: Command) -> None:
    cni("add", "--container-id", "c1")
    done = cni("add", "--container-id", "c1")
    assert (done.exit_code, cni.plugins.order) == (2, ["ADD p"])
    assert "has eth0 in network net already" in done.stderr
    assert cni("add", "--container-id", "c1", "--ifname", "net1").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "--netns", "/gone"], "there is no network namespace /gone"),
        (["add", "--netns", "gone"], "there is no network namespace /run/netns/gone"),
        (["add", "--container-id", "../x"], "invalid characters in containerID"),
        (["add", "--ifname", "a/b"], "interface name contains"),
        (["add", "--args", "x"], "'x' is no pair"),
        (["add", "--capability-args", "[]"], "--capability-args: it must be an object"),
        (["add", "--network", "other"], "no network other: there are net"),
        (["add", "--conf", "/gone"], "/gone: it cannot be read"),
        (["add", "--path", "/gone"], 'failed to find plugin "p" in path [/gone]'),
        (["add", "--timeout", "0"], "--timeout"),
        (["gc", "--valid", "c1"], "'c1' names no attachment"),
        (["gc", "--valid", "c1/eth0", "--all"], "contradict"),
        (["status", "--path", "/gone"], "failed to find plugin"),
    ],
)
def test_what_is_wrong_with_the_call(cni: Command, arguments: list[str], message: str) -> None:
    done = cni(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert cni.plugins.calls == []


@pytest.mark.parametrize("verb", ["check", "del"])
def test_which_container_must_be_said(cni: Command, verb: str) -> None:
    done = cni(verb, netns=False)
    assert done.exit_code == 2
    assert "--netns or --container-id is missing" in done.stderr


def test_what_a_configuration_switches_off_is_said(cni: Command) -> None:
    configure(cni.folder, {"cniVersion": "1.1.0", "disableCheck": True, "disableGC": True})
    assert "disableCheck" in cni("check").stdout
    assert "disableGC" in cni("gc").stdout
    configure(cni.folder, {"cniVersion": "1.0.0"})
    assert json.loads(cni("status", "-o", "json").stdout) == {
        "network": "net", "cniVersion": "1.0.0", "asked": False, "ok": True,
    }  # fmt: skip
    configure(cni.folder, {"cniVersion": "0.3.1"})
    assert cni("check").exit_code == 2
    assert cni.plugins.calls == []


def test_gc_keeps_what_has_its_namespace(cni: Command) -> None:
    other = cni.folder / "other"
    other.touch()
    cni("add", "--container-id", "c1")
    cni("add", "--container-id", "c2", "--netns", str(other))
    other.unlink()
    done = cni("gc", "-o", "json")
    assert json.loads(done.stdout)["detached"] == ["c2/eth0"]
    assert cni.plugins.calls[-1]["config"]["cni.dev/valid-attachments"] == [{"containerID": "c1", "ifname": "eth0"}]


def test_gc_keeps_what_has_no_namespace_written_down(cni: Command) -> None:
    cni("add", "--container-id", "c1")
    (kept,) = (cni.folder / "cache" / "results").iterdir()
    file = json.loads(kept.read_bytes())
    del file["netns"], file["result"]["interfaces"]
    kept.write_text(json.dumps(file), encoding="utf-8")
    assert json.loads(cni("gc", "-o", "json").stdout)["detached"] == []
    assert cni.cached() == ["net-c1-eth0"]


@pytest.mark.parametrize(
    ("arguments", "left"), [(["--all"], []), (["--valid", "c1/eth0", "--valid", "c3/net1"], ["net-c1-eth0"])]
)
def test_gc_of_what_is_said(cni: Command, arguments: list[str], left: list[str]) -> None:
    for name in ("c1", "c2"):
        cni("add", "--container-id", name)
    assert cni("gc", *arguments).exit_code == 0
    assert cni.cached() == left


def test_status_and_version(cni: Command) -> None:
    assert "ready" in cni("status").stdout
    done = cni("version", "-o", "json")
    assert json.loads(done.stdout)["plugins"] == [
        {"type": "p", "path": str(cni.plugins.folder / "p"), "supported": ["1.0.0", "1.1.0"], "fits": True}
    ]
    configure(cni.folder, {"cniVersion": "0.4.0"})
    done = cni("version")
    assert done.exit_code == 1
    assert "no" in done.stdout


@pytest.mark.parametrize("verb", ["add", "del", "check", "gc", "status", "version"])
def test_help(verb: str) -> None:
    done = CliRunner().invoke(command, [verb, "--help"])
    assert done.exit_code == 0
    assert "--conf" in done.stdout
