"""A broken plugin is reported with its reason, in a process of its own, and stops nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.broken.dists import BROKEN, LOSS, Dist, healthy, losses

BY_NAME = {dist.name: dist for dist in BROKEN}


def on_path(folder: Path | str) -> str:
    """``folder`` ahead of what the caller has on the path."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


def run(folder: Path | str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """``ptsdk`` with the dists of a folder installed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PTSDK_")}
    return subprocess.run(
        [sys.executable, "-m", "ptsdk", *args],
        capture_output=True,
        text=True,
        env={**clean, "PYTHONPATH": on_path(folder), **env},
        timeout=60,
        check=False,
    )


def records(folder: Path | str, *args: str, **env: str) -> dict[str, dict[str, Any]]:
    """``ptsdk plugins --json`` by dist; it must succeed."""
    done = run(folder, *args, "plugins", "--json", **env)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert len({r["dist"] for r in listed}) == len(listed)
    return {r["dist"]: r for r in listed}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """All the mistakes at once, beside two sound dists."""
    folder = tmp_path_factory.mktemp("all")
    for dist in (*BROKEN, healthy("ptsdk-a-sound", "zero"), healthy("ptsdk-z-sound", "nought")):
        dist.install(folder)
    return run(folder, "plugins", "--json")


@pytest.mark.parametrize("name", BY_NAME)
def test_the_record_says_why(name: str, everything: subprocess.CompletedProcess[str]) -> None:
    assert everything.returncode == 0, everything.stderr
    record = next(r for r in json.loads(everything.stdout) if r["dist"] == name)
    assert (record["status"], record["components"], record["version"]) == ("broken", [], "1.0")
    for words in BY_NAME[name].says:
        assert words in record["error"]
    lines = [line for line in everything.stderr.splitlines() if f"plugin {name} 1.0" in line]
    assert len(lines) == 1
    assert f"pip uninstall {name}" in lines[0]


def test_everything_else_loads(everything: subprocess.CompletedProcess[str]) -> None:
    loaded = {r["dist"]: r for r in json.loads(everything.stdout) if r["status"] == "loaded"}
    assert {"ptsdk", "ptsdk-a-sound", "ptsdk-z-sound"} <= set(loaded)
    assert not set(loaded) & set(BY_NAME)
    assert loaded["ptsdk-z-sound"]["components"] == [
        {"kind": "loss", "name": "nought", "target": "ptsdk_z_sound.losses:Zero", "summary": "Nothing at all"}
    ]
    assert "Traceback" not in everything.stderr


@pytest.mark.parametrize("name", ["ptsdk-x-import", "ptsdk-x-exits", "ptsdk-x-target", "ptsdk-x-line"])
def test_strict_refuses(name: str, tmp_path: Path) -> None:
    done = run(BY_NAME[name].install(tmp_path), "plugins", "--json", PTSDK_STRICT="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert name in done.stderr
    assert all(words in done.stderr for words in BY_NAME[name].says)


def test_strict_accepts_sound_plugins(tmp_path: Path) -> None:
    assert records(healthy("ptsdk-a-sound", "zero").install(tmp_path), PTSDK_STRICT="1")["ptsdk-a-sound"]


def test_a_blocked_plugin_is_never_imported(tmp_path: Path) -> None:
    mark = tmp_path / "imported"
    dist = Dist("ptsdk-x-mark", f"open({str(mark)!r}, 'w')\nPTSDK_API = 1\n")
    dist.install(tmp_path)
    for args, env in (
        ((), {"PTSDK_DISABLE": "other, PTSDK_X.mark"}),
        ((), {"PTSDK_PLUGINS": "ptsdk-lora"}),
        ((), {"PTSDK_PLUGINS": ""}),
        (("--no-plugin", "ptsdk_x_mark"), {}),
        (("--safe",), {}),
    ):
        record = records(tmp_path, *args, **env)["ptsdk-x-mark"]
        assert (record["status"], record["api"], record["components"]) == ("blocked", None, [])
        assert record["error"]
    assert not mark.exists()
    assert records(tmp_path, PTSDK_PLUGINS="ptsdk_x_mark")["ptsdk-x-mark"]["status"] == "loaded"
    assert mark.exists()


def test_a_dist_listed_twice_counts_once(tmp_path: Path) -> None:
    """The same folder twice, and through a link, as lib64 beside lib on some systems."""
    folder = tmp_path / "lib"
    healthy("ptsdk-a-sound", "zero").install(folder)
    (tmp_path / "lib64").symlink_to(folder)
    done = run(os.pathsep.join(map(str, (folder, folder, tmp_path / "lib64"))), "plugins", "--json")
    found = [r for r in json.loads(done.stdout) if r["dist"] == "ptsdk-a-sound"]
    assert [len(r["components"]) for r in found] == [1]
    assert done.stderr == ""


def test_another_version_behind_is_reported(tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        healthy("ptsdk-a-sound", "zero", version).install(tmp_path / version)
    path = os.pathsep.join(str(tmp_path / version) for version in ("2.0", "1.0"))
    assert records(path)["ptsdk-a-sound"]["version"] == "2.0"
    assert "ptsdk-a-sound is installed twice" in run(path, "list", "loss").stderr


def test_two_dists_with_one_module(tmp_path: Path) -> None:
    """A fork under another name overwrites the files of the original; one of them lies about its own."""
    healthy("ptsdk-a-sound", "zero").install(tmp_path)
    points = "[ptsdk]\na = ptsdk_a_sound.plugin\n"
    Dist("ptsdk-b-fork", "", entry_points=points).install(tmp_path)
    found = records(tmp_path)
    assert found["ptsdk-a-sound"]["status"] == "loaded"
    assert "also the plugin of ptsdk-a-sound" in found["ptsdk-b-fork"]["error"]


def test_two_providers_of_a_name(tmp_path: Path) -> None:
    for name in ("ptsdk-a-sound", "ptsdk-z-sound"):
        healthy(name, "zero").install(tmp_path)
    found = records(tmp_path)
    assert all(found[name]["status"] == "loaded" for name in ("ptsdk-a-sound", "ptsdk-z-sound"))
    listed = json.loads(run(tmp_path, "list", "loss", "--json").stdout)
    assert [e["dist"] for e in listed if e["name"] == "zero"] == ["ptsdk-a-sound", "ptsdk-z-sound"]
    done = run(tmp_path, "show", "loss", "zero")
    assert done.returncode == 2
    for words in ("ptsdk-a-sound 1.0", "ptsdk-z-sound 1.0", "ptsdk-a-sound/zero", "ptsdk-z-sound/zero"):
        assert words in done.stderr


def test_what_a_plugin_prints_stays_off_stdout(tmp_path: Path) -> None:
    Dist("ptsdk-x-print", "print('hello')\nPTSDK_API = 1\n").install(tmp_path)
    done = run(tmp_path, "plugins", "--json")
    assert json.loads(done.stdout)
    assert "hello" in done.stderr


def test_a_missing_name_blames_the_broken_plugin(tmp_path: Path) -> None:
    BY_NAME["ptsdk-x-import"].install(tmp_path)
    done = run(tmp_path, "show", "loss", "zero")
    assert done.returncode == 2
    assert "ptsdk-x-import 1.0 may provide it but is broken" in done.stderr
    assert "nowhere_to_be_found" in done.stderr


def test_nothing_heavy_is_loaded_even_by_a_plugin_that_tries(tmp_path: Path) -> None:
    """Nor does a module stay behind that believes an optional library is missing."""
    for name in ("ptsdk-x-heavy", "ptsdk-x-optional", "ptsdk-x-indirect"):
        BY_NAME[name].install(tmp_path)
    code = (
        "import sys; from ptsdk.cli.main import main; assert main(['plugins']) == 0; "
        "print(sorted({'torch', 'transformers', 'datasets', 'huggingface_hub', 'pydantic'} & set(sys.modules)), "
        "'ptsdk_x_optional.soft' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": on_path(tmp_path)},
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[] False"


def test_doctor_names_every_fault_and_a_fix(tmp_path: Path) -> None:
    for name in ("ptsdk-x-import", "ptsdk-x-api99"):
        BY_NAME[name].install(tmp_path)
    for name in ("ptsdk-a-sound", "ptsdk-z-sound"):
        healthy(name, "zero").install(tmp_path)
    gone = 'return [Spec("gone", "ptsdk_x_class.losses:Zeero"), Spec("needs", "os:path", requires=("nowhere>=2",))]'
    Dist("ptsdk-x-class", losses(gone), modules={"losses.py": LOSS}).install(tmp_path)
    done = run(tmp_path, "doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (1, False)
    bad = {c["name"]: c for c in report["checks"] if not c["ok"]}
    assert all(set(c) == {"name", "ok", "detail", "fix"} for c in report["checks"])
    assert all(c["fix"] for c in bad.values())
    assert "nowhere_to_be_found" in bad["plugin ptsdk-x-import"]["detail"]
    assert "API 99" in bad["plugin ptsdk-x-api99"]["detail"]
    assert "ptsdk-a-sound/zero" in bad["name clash"]["fix"]
    assert "did you mean Zero?" in bad["loss ptsdk-x-class/gone"]["detail"]
    assert bad["loss ptsdk-x-class/needs"]["fix"] == "pip install 'nowhere>=2'"
    names = {c["name"] for c in report["checks"]}
    assert {"python", "torch", "plugin ptsdk", "requirements ptsdk"} <= names
