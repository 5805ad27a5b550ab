"""The verb: what it writes, and what it refuses without writing anything."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ptsdk
from ptsdk.cli.main import main
from ptsdk.errors import RunError, UserError
from ptsdk.specs import API, KINDS
from ptsdk_templates import command
from ptsdk_templates.naming import Names
from ptsdk_templates.rendering import kinds, rendered, template


def test_every_kind_has_a_template() -> None:
    assert kinds() == list(KINDS)


@pytest.mark.parametrize("kind", kinds())
def test_a_template_is_a_whole_package(kind: str) -> None:
    files = template(kind)
    dist, package = f"ptsdk-example-{kind}", f"ptsdk_example_{kind.replace('-', '_')}"
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == dist
    assert project["entry-points"] == {"ptsdk": {f"example-{kind}": f"{package}.plugin"}}
    assert project["dependencies"] == [f"ptsdk>={ptsdk.__version__}"]
    extras = [Requirement(one) for one in project["optional-dependencies"]["test"]]
    assert {bound.operator for one in extras for bound in one.specifier} == {">="}
    assert f"\nPTSDK_API = {API} " in files[f"src/{package}/plugin.py"]
    assert files["README.md"].startswith(f"# {dist}\n")
    assert f"(c) 2026, the {dist} authors" in files["LICENSE"]
    assert {
        "LICENSE",
        ".gitignore",
        f"src/{package}/py.typed",
        f"tests/test_example_{kind.replace('-', '_')}.py",
    } <= set(files)


@pytest.mark.parametrize("kind", kinds())
def test_nothing_is_left_of_the_placeholders(kind: str) -> None:
    for path, text in rendered(Names(kind, "blue-sky")).items():
        left = re.findall(rf"example[-_]{kind.replace('-', '[-_]')}|\bExample[A-Z]\w*", f"{path}\n{text}")
        assert not left, path
        compile(text, path, "exec") if path.endswith(".py") else None


def test_the_names_of_a_package() -> None:
    files = rendered(Names("loss", "blue-sky"))
    assert "src/ptsdk_blue_sky/loss.py" in files
    assert "class BlueSkyLoss(TokenLoss):" in files["src/ptsdk_blue_sky/loss.py"]
    assert '"blue-sky",\n' in files["src/ptsdk_blue_sky/plugin.py"]
    assert tomllib.loads(files["pyproject.toml"])["project"]["name"] == "ptsdk-blue-sky"
    underscore = rendered(Names("loss", "blue_sky"))
    assert '"blue_sky",\n' in underscore["src/ptsdk_blue_sky/plugin.py"]


def test_it_writes_the_package_and_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "loss", "blue-sky", "--dir", str(tmp_path / "new")]) == 0
    folder = tmp_path / "new" / "ptsdk-blue-sky"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == set(rendered(Names("loss", "blue-sky")))
    assert list((tmp_path / "new").iterdir()) == [folder]
    shown = capsys.readouterr().out
    assert f"cd {folder}" in shown
    assert "ptsdk conform ptsdk-blue-sky" in shown


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("los", "fine", ["no template of the kind 'los'", "did you mean loss?"]),
        ("nothing", "fine", ["there are model-family, "]),
        ("loss", "Blue Sky", ["'Blue Sky' cannot name a package", "did you mean blue-sky?"]),
        ("loss", "../up", ["'../up' cannot name a package", "did you mean up?"]),
        ("loss", "", ["cannot name a package"]),
        ("loss", "Café au_lait", ["cannot name a package", "did you mean cafe-au_lait?"]),
        ("loss", "ptsdk-focal", ["ptsdk- is put in front", "did you mean focal?"]),
        ("loss", "a" * 41, ["longer than 40"]),
        ("adapter", "lora", ["ptsdk-lora is a package of the project itself"]),
        ("loss", "token", ["makes the class TokenLoss, which the SDK has already"]),
        ("los", "Bad", ["no template of the kind", "cannot name a package"]),
    ],
)
def test_what_it_refuses(
    kind: str, name: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-plugin", kind, name, "--dir", str(tmp_path / "new")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(word in captured.err for word in words), captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["9lives", "1st", "日本", "naïve日", "--", "ptsdk"])
def test_no_name_is_suggested_that_means_something_else(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a package") as caught:
        Names.checked("loss", name, ["loss"])
    assert "did you mean" not in str(caught.value)


def test_an_existing_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "ptsdk-focal" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert main(["new-plugin", "loss", "focal", "--dir", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["ptsdk-focal", "mine.txt"]
    assert main(["new-plugin", "loss", "focal", "--dir", str(mine)]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_disk_that_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match="no space left"):
        command.write({"a/b.txt": "text"}, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_caches_of_a_template_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loss" / "__pycache__").mkdir(parents=True)
    (tmp_path / "loss" / "__pycache__" / "a.pyc").write_bytes(b"\xff\xfe")
    (tmp_path / "loss" / "kept.txt").write_text("kept")
    monkeypatch.setattr("ptsdk_templates.rendering.PACKAGES", tmp_path)
    assert template("loss") == {"kept.txt": "kept"}


def test_without_the_package_the_verb_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--safe", "new-plugin", "loss", "focal"]) == 2
    assert "ptsdk-templates" in capsys.readouterr().err


def test_names_are_checked_before_a_template_is_read() -> None:
    with pytest.raises(UserError):
        Names.checked("loss", "no good", ["loss"])
