"""Discovery: options, order, the spec classes, and that it is a pure function of the environment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptsdk import discover
from ptsdk._loading import module_exists
from ptsdk.builtin import plugin as core
from ptsdk.errors import UserError
from ptsdk.plugins import DiscoveryOptions, scan
from ptsdk.specs import KINDS, LossSpec

ONLY = DiscoveryOptions(allow=frozenset({"ptsdk-t-one", "ptsdk-t-two"}))


def install(folder: Path, name: str, plugin: str) -> None:
    """A dist with nothing but a plugin module."""
    package = name.replace("-", "_")
    info = folder / f"{package}-1.0.dist-info"
    for path in (folder / package, info):
        path.mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    (folder / package / "plugin.py").write_text(plugin)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ptsdk]\n{name} = {package}.plugin\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on ``sys.path`` whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("ptsdk_t_"):
            del sys.modules[name]


def test_core_is_a_record_with_what_its_plugin_module_says() -> None:
    record = scan(DiscoveryOptions(safe=True)).records[0]
    assert (record.dist, record.status, record.api) == ("ptsdk", "loaded", core.PTSDK_API)
    declared = [(k.name, spec) for k in KINDS.values() if hasattr(core, k.hook) for spec in getattr(core, k.hook)()]
    assert [(entry.kind, entry.spec) for entry in record.components] == declared


def test_records_come_by_dist_and_twice_the_same(site: Path) -> None:
    for name in ("ptsdk-t-two", "ptsdk-t-one"):
        install(site, name, "PTSDK_API = 1\n")
    first = scan(ONLY)
    assert [r.dist for r in first.records if r.status == "loaded"] == ["ptsdk", "ptsdk-t-one", "ptsdk-t-two"]
    assert scan(ONLY) == first


def test_a_plain_spec_is_enough_for_any_hook(site: Path) -> None:
    body = "from ptsdk.specs import Spec\nPTSDK_API = 1\n\ndef ptsdk_losses():\n"
    install(site, "ptsdk-t-one", f"{body}    yield Spec('a', 'os:path', requires=['numpy'], supports={{'x'}})\n")
    record = scan(ONLY).get("ptsdk_t_one")
    assert record is not None
    assert [entry.spec for entry in record.components] == [
        LossSpec("a", "os:path", requires=("numpy",), supports=frozenset({"x"}))
    ]


def test_the_marker_is_optional_and_may_rename(site: Path) -> None:
    text = (
        "from ptsdk.hookspecs import hookimpl\nfrom ptsdk.specs import Spec\nPTSDK_API = 1\n"
        "@hookimpl(specname='ptsdk_rewards')\ndef rewards():\n    return [Spec('a', 'os:path')]\n"
        "@hookimpl\ndef ptsdk_callbacks():\n    return [Spec('b', 'os:path')]\n"
        "@hookimpl(optionalhook=True)\ndef ptsdk_of_a_later_api():\n    return 1\n"
    )
    install(site, "ptsdk-t-one", text)
    record = scan(ONLY).get("ptsdk-t-one")
    assert record is not None
    assert {(e.kind, e.spec.name) for e in record.components} == {("reward", "a"), ("callback", "b")}


def test_a_plugin_is_alone_while_it_is_asked(site: Path) -> None:
    """One that wraps a hook, and one whose hook has arguments, are faults and nothing to the plugin after them."""
    spec = "[Spec('a', 'os:path')]"
    wrapper = f"@hookimpl(hookwrapper=True)\ndef ptsdk_losses():\n    (yield).force_result({spec})\n"
    head = "from ptsdk.hookspecs import hookimpl\nfrom ptsdk.specs import Spec\nPTSDK_API = 1\n"
    install(site, "ptsdk-t-one", head + wrapper)
    install(
        site, "ptsdk-t-two", head + f"def ptsdk_losses():\n    return {spec}\n\ndef ptsdk_rewards(run):\n    pass\n"
    )
    install(site, "ptsdk-t-xyz", head + f"def ptsdk_losses():\n    return {spec}\n")
    records = scan(DiscoveryOptions(allow=frozenset({"ptsdk-t-one", "ptsdk-t-two", "ptsdk-t-xyz"})))
    found = {r.dist: [e.kind for e in r.components] for r in records.records if r.dist.startswith("ptsdk-t-")}
    assert found == {"ptsdk-t-one": [], "ptsdk-t-two": [], "ptsdk-t-xyz": ["loss"]}


def test_a_plugin_of_the_api_before_still_loads(site: Path) -> None:
    install(site, "ptsdk-t-one", "PTSDK_API = 0\n")
    record = scan(ONLY).get("ptsdk-t-one")
    assert record is not None
    assert (record.status, record.api) == ("loaded", 0)


def test_ctrl_c_is_not_taken_for_a_broken_plugin(site: Path) -> None:
    install(site, "ptsdk-t-one", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        scan(ONLY)


def test_strict_names_every_broken_plugin(site: Path) -> None:
    for name in ("ptsdk-t-one", "ptsdk-t-two"):
        install(site, name, "PTSDK_API = 9\n")
    with pytest.raises(UserError) as caught:
        scan(DiscoveryOptions(allow=ONLY.allow, strict=True))
    assert [p.message.split()[1] for p in caught.value.problems] == ["ptsdk-t-one", "ptsdk-t-two"]


def test_metadata_that_cannot_be_read_is_a_record(site: Path) -> None:
    install(site, "ptsdk-t-one", "PTSDK_API = 1\n")
    (site / "ptsdk_t_one-1.0.dist-info" / "entry_points.txt").write_bytes(b"[ptsdk]\nt\xff = x\n")
    record = scan(ONLY).get("ptsdk-t-one")
    assert record is not None
    assert "not UTF-8" in str(record.error)


def test_discover_is_the_json_of_the_command() -> None:
    records = discover()
    assert all(set(r) == {"dist", "version", "api", "status", "error", "components"} for r in records)
    assert all(set(c) == {"kind", "name", "target", "summary"} for r in records for c in r["components"])


def test_options_survive_the_trip_to_a_child_process() -> None:
    environ = {"PTSDK_PLUGINS": "Ptsdk_A, ptsdk-b", "PTSDK_DISABLE": "ptsdk.c", "PTSDK_STRICT": "1"}
    options = DiscoveryOptions.from_environment(environ, no_plugin=["ptsdk_d"])
    assert options == DiscoveryOptions(
        allow=frozenset({"ptsdk-a", "ptsdk-b"}), deny=frozenset({"ptsdk-c", "ptsdk-d"}), strict=True
    )
    assert DiscoveryOptions.from_environment(options.environment()) == options
    child = DiscoveryOptions.from_environment(DiscoveryOptions(safe=True).environment())
    assert child.blocks("ptsdk-a")
    assert DiscoveryOptions.from_environment({}) == DiscoveryOptions()


def test_a_name_that_is_not_installed_is_reported() -> None:
    options = DiscoveryOptions(deny=frozenset({"lora", "ptsdk-lroa", "ptsdk"}))
    lora, typo, core_itself = sorted(options.notices(["ptsdk-lora"]))
    assert "did you mean ptsdk-lora?" in lora
    assert "did you mean ptsdk-lora?" in typo
    assert "cannot be disabled" in core_itself


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("json.decoder", True),
        ("json.nothing", False),
        ("nothing_at_all.x", False),
        ("math", True),
        ("os.path", True),
        ("math.x", False),
        ("xml.dom.minidom", True),
    ],
)
def test_modules_are_found_without_being_run(name: str, there: bool) -> None:
    before = set(sys.modules)
    assert module_exists(name) is there
    assert set(sys.modules) == before
