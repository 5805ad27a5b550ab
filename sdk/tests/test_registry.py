"""Look-up by name, and classes from targets and local files."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ptsdk.contracts.loss import TokenLoss
from ptsdk.contracts.reward import Reward
from ptsdk.errors import UserError
from ptsdk.plugins import DiscoveryOptions, Entry, Plugins, Record, scan
from ptsdk.registry import Registry, missing_requirements
from ptsdk.specs import CheckpointSourceSpec, LossSpec, ModelFamilySpec, Spec


def loaded(dist: str, *components: tuple[str, Spec]) -> Record:
    """A sound dist."""
    entries = tuple(Entry(kind, spec, dist, "1.0") for kind, spec in components)
    return Record(dist, "1.0", 1, "loaded", None, entries)


def registry(*records: Record) -> Registry:
    """What is installed is just this."""
    return Registry(Plugins(records))


def refusal(call: Any, *args: Any) -> str:
    """The text of the ``UserError`` that a call raises."""
    with pytest.raises(UserError) as caught:
        call(*args)
    return str(caught.value)


A = loaded("ptsdk-a", ("loss", LossSpec("zero", "os:path")), ("loss", LossSpec("focal", "os:path")))
B = loaded("ptsdk-b", ("loss", LossSpec("zero", "os:path")))


def test_a_bare_name_of_one_provider() -> None:
    assert registry(A, B).find("loss", "focal").dist == "ptsdk-a"


def test_two_providers_need_the_qualified_name() -> None:
    both = registry(A, B)
    text = refusal(both.find, "loss", "zero")
    for words in ("ptsdk-a 1.0", "ptsdk-b 1.0", "use: ptsdk-a/zero or use: ptsdk-b/zero"):
        assert words in text
    assert both.find("loss", "ptsdk-b/zero").dist == "ptsdk-b"
    assert both.find("loss", "Ptsdk_B/zero").dist == "ptsdk-b"
    assert both.names("loss") == ["ptsdk-a/zero", "focal", "ptsdk-b/zero"]


def test_a_word_of_a_command_line_means_the_verb_of_core() -> None:
    verb = Spec("run", "os:path")
    theirs = [loaded(dist, ("command", verb), ("command", Spec("tidy", "os:path"))) for dist in ("ptsdk-a", "ptsdk-b")]
    both = registry(loaded("ptsdk", ("command", verb)), *theirs)
    assert both.find("command", "run").dist == "ptsdk"
    assert both.find("command", "ptsdk-a/run").dist == "ptsdk-a"
    assert both.names("command") == ["run", "ptsdk-a/run", "ptsdk-a/tidy", "ptsdk-b/run", "ptsdk-b/tidy"]
    assert refusal(both.find, "command", "tidy").endswith("`ptsdk ptsdk-a/tidy` or `ptsdk ptsdk-b/tidy`")


def test_a_scheme_of_core_stays_with_core() -> None:
    hub = CheckpointSourceSpec("hub", "os:path", schemes=("hf", "s3"))
    a, b = (loaded(dist, ("checkpoint-source", hub)) for dist in ("ptsdk-a", "ptsdk-b"))
    core = loaded("ptsdk", ("checkpoint-source", CheckpointSourceSpec("hub", "os:path", schemes=("hf",))))
    assert registry(core, a, b).by_scheme("hf").dist == "ptsdk"
    text = refusal(registry(core, a, b).by_scheme, "s3")
    assert "2 plugins fetch s3:// checkpoints: ptsdk-a 1.0, ptsdk-b 1.0" in text
    assert "ptsdk --no-plugin ptsdk-b" in text


def test_core_takes_no_precedence_in_a_job() -> None:
    both = registry(loaded("ptsdk", ("loss", LossSpec("zero", "os:path"))), B)
    assert "use: ptsdk/zero or use: ptsdk-b/zero" in refusal(both.find, "loss", "zero")


def test_a_typo_is_suggested() -> None:
    assert "did you mean focal?" in refusal(registry(A).find, "loss", "focl")
    assert "did you mean loss?" in refusal(registry(A).entries, "los")
    assert "ptsdk-a has no loss 'focl'" in refusal(registry(A).find, "loss", "ptsdk-a/focl")
    assert "did you mean ptsdk-a?" in refusal(registry(A).find, "loss", "ptsdk-aa/focal")


@pytest.mark.parametrize(
    ("kind", "name", "dist"),
    [
        ("adapter", "dora", "ptsdk-lora"),
        ("quantizer", "nf4", "ptsdk-torchao"),
        ("method", "dpo", "ptsdk-dpo"),
        ("strategy", "fsdp2", "ptsdk-fsdp2"),
        ("logger", "wandb", "ptsdk-wandb"),
        ("command", "new-plugin", "ptsdk-templates"),
    ],
)
def test_an_official_component_says_what_to_install(kind: str, name: str, dist: str) -> None:
    assert f"pip install {dist}" in refusal(registry().find, kind, name)


def test_a_broken_provider_answers_with_its_own_error() -> None:
    broken = Record("ptsdk-lora", "1.0", None, "broken", "ImportError: no peft")
    text = refusal(registry(A, broken).find, "adapter", "lora")
    assert "ptsdk-lora 1.0 is broken: ImportError: no peft" in text
    assert "pip install ptsdk-lora" not in text
    assert "is broken: ImportError: no peft" in refusal(registry(broken).find, "adapter", "ptsdk-lora/lora")
    assert "ptsdk-lora 1.0 may provide it but is broken" in refusal(registry(A, broken).find, "loss", "unheard-of")
    fancy = Record("acme-fancy", "1.0", None, "broken", "SyntaxError")
    assert "acme-fancy 1.0 is broken: SyntaxError" in refusal(registry(fancy).find, "loss", "fancy")


def test_a_disabled_provider_says_so() -> None:
    blocked = Record("ptsdk-lora", "1.0", None, "blocked", "disabled by PTSDK_DISABLE or --no-plugin")
    for name in ("lora", "ptsdk-lora/lora"):
        assert "ptsdk-lora is disabled by PTSDK_DISABLE" in refusal(registry(blocked).find, "adapter", name)


def test_by_architecture_and_scheme() -> None:
    llama = ModelFamilySpec("llama", "os:path", architectures=("LlamaForCausalLM",))
    hub = CheckpointSourceSpec("hub", "os:path", schemes=("hf",))
    one = registry(loaded("ptsdk-llama", ("model-family", llama), ("checkpoint-source", hub)))
    assert one.by_architecture("LlamaForCausalLM").spec is llama
    assert one.by_scheme("hf").spec is hub
    assert "pip install ptsdk-qwen" in refusal(one.by_architecture, "Qwen3ForCausalLM")
    assert "installed: LlamaForCausalLM" in refusal(one.by_architecture, "BertModel")
    assert "installed: hf" in refusal(one.by_scheme, "s3")
    two = registry(*(loaded(dist, ("model-family", llama)) for dist in ("ptsdk-llama", "ptsdk-other")))
    assert "use: ptsdk-llama/llama or use: ptsdk-other/llama" in refusal(two.by_architecture, "LlamaForCausalLM")


CORE = Registry(scan(DiscoveryOptions(safe=True)))


@pytest.mark.parametrize("entry", CORE.plugins.records[0].components, ids=lambda e: f"{e.kind} {e.spec.name}")
def test_every_target_of_core_is_there_and_fulfils_its_contract(entry: Entry) -> None:
    """Discovery does not look for core's own modules, so this does."""
    assert CORE.load_command(entry) if entry.kind == "command" else CORE.load(entry)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a reward that lacks its method, one that is whole, and things that are neither."""

    class Whole(Reward):
        def score(self, completions: Any, rows: Any) -> list[float]:
            return [0.0] * len(completions)

    made = ModuleType("ptsdk_t_rewards")
    vars(made).update(Whole=Whole, Half=type("Half", (Reward,), {"__module__": __name__}), Not=int, text="text")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def reward(name: str, module: str = "ptsdk_t_rewards", requires: tuple[str, ...] = ()) -> Entry:
    return Entry("reward", Spec("r", f"{module}:{name}", requires=requires), "ptsdk-r", "1.0")


def test_a_target_must_be_a_whole_class_of_the_contract(module: ModuleType) -> None:
    load = registry().load
    assert load(reward("Whole")) is module.Whole
    half = refusal(load, reward("Half"))
    assert "does not define score" in half
    assert "completions: " in half
    assert "did you mean Whole?" in refusal(load, reward("Whol"))
    assert "is not a Reward" in refusal(load, reward("Not"))
    assert "is 'text', not a class" in refusal(load, reward("text"))
    wrong = refusal(load, Entry("loss", Spec("r", "ptsdk_t_rewards:Whole"), "ptsdk-r", "1.0"))
    assert "is a reward, not a loss" in wrong
    for text in (half, wrong):
        assert "ptsdk-r 1.0 (target ptsdk_t_rewards:" in text


def test_a_missing_call_is_told_as_its_objective_has_it(module: ModuleType) -> None:
    vars(module)["HalfLoss"] = type("HalfLoss", (TokenLoss,), {"__module__": __name__})
    told = refusal(registry().load, Entry("loss", Spec("h", "ptsdk_t_rewards:HalfLoss"), "ptsdk-r", "1.0"))
    assert "write __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput" in told


def test_a_target_that_does_not_import_names_dist_and_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ptsdk_t_needs.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "ptsdk_t_exits.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "ptsdk_t_base.py").write_text("raise BaseException('panic')\n")
    text = refusal(registry().load, reward("R", "ptsdk_t_needs", ("nowhere>=2", "adapter:lora")))
    assert "ptsdk-r 1.0 (target ptsdk_t_needs:R) does not import" in text
    assert "it needs nowhere_to_be_found: pip install 'nowhere>=2'" in text
    assert "ptsdk_t_needs.py:1" in text
    assert "pip install -U ptsdk-r" in refusal(registry().load, reward("R", "ptsdk_t_exits"))
    assert "BaseException: panic" in refusal(registry().load, reward("R", "ptsdk_t_base"))
    assert "pip install -U ptsdk-r" in refusal(registry().load, reward("R", "ptsdk_t_gone"))


def test_requirements_are_read_as_pep_508_says() -> None:
    spec = Spec("a", "os:path", requires=("pytest>=1", "pytest>=999", "nowhere; python_version < '3'", "no-such-dist"))
    assert missing_requirements(spec) == ("pytest>=999", "no-such-dist")
    assert missing_requirements(Spec("a", "os:path", requires=("adapter:lora",))) == ()
    assert "'not a requirement'" in refusal(missing_requirements, Spec("a", "os:path", requires=("not a requirement",)))


PLAIN = '''
from __future__ import annotations
from typing import Annotated
from pydantic import Field

class Length:
    """Prefers some length."""

    wanted: int = 3
    scale: Annotated[float, Field(gt=0)] = 1.0
    unit = "characters"

    def score(self, completions: list[str], rows: list[dict]) -> list[float]:
        return [-self.scale * abs(len(text) - self.wanted) for text in completions]
'''


def test_a_plain_local_class_becomes_a_component(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(PLAIN)
    component, digest = registry().load_local("./r.py:Length", "reward", tmp_path)
    assert digest == hashlib.sha256(PLAIN.encode()).hexdigest()
    assert Reward in component.__mro__
    assert component.__doc__ == "Prefers some length."
    assert component(wanted=2, scale=2).score(["ab", "abcd"], [{}, {}]) == [0, -4]
    assert component().unit == "characters"
    for wrong in ({"scale": -1}, {"unknown": 1}, {"wanted": "x"}):
        with pytest.raises(ValueError, match="validation error"):
            component(**wrong)
    assert not (tmp_path / "__pycache__").exists()


def test_a_local_subclass_is_taken_as_it_is(tmp_path: Path) -> None:
    text = "from ptsdk.contracts.reward import Reward\nclass R(Reward):\n    def score(self, c, r): return [1.0]\n"
    (tmp_path / "r.py").write_text(text)
    component, _ = registry().load_local("r.py:R", "reward", tmp_path)
    assert component.__mro__[1] is Reward
    assert registry().load_local("r.py:R", "reward", tmp_path)[0] is component


def test_an_edited_file_is_another_module(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(PLAIN)
    first = registry().load_local("r.py:Length", "reward", tmp_path)
    (tmp_path / "r.py").write_text(PLAIN.replace("wanted: int = 3", "wanted: int = 4"))
    second = registry().load_local("r.py:Length", "reward", tmp_path)
    assert first[1] != second[1]
    assert (first[0]().wanted, second[0]().wanted) == (3, 4)


@pytest.mark.parametrize(
    ("text", "reference", "words"),
    [
        (PLAIN, "gone.py:Length", "there is no file"),
        (PLAIN, "r.py", "write ./file.py:ClassName"),
        (PLAIN, "r.py:Lenght", "did you mean Length?"),
        ("class Length:\n    pass\n", "r.py:Length", "does not define score"),
        ("class Length:\n    def __init__(self): pass\n", "r.py:Length", "has its own __init__"),
        ("import enum\nclass Length(enum.Enum):\n    a = 1\n", "r.py:Length", "is not a Reward"),
        ("class Length:\n    score: int = 3\n    scale: 5 = 5\n", "r.py:Length", "options of Length cannot be read"),
        ("def Length(c, r): return c\n", "r.py:Length", "not a class"),
        ("x = 1\n\nclass :\n", "r.py:Length", "r.py:3: does not import: SyntaxError"),
        ("import neighbour_of_mine\n", "r.py:Length", "not its neighbours"),
        ("raise SystemExit\n", "r.py:Length", "does not import: SystemExit"),
        ("raise BaseException('panic')\n", "r.py:Length", "does not import: BaseException: panic"),
        ("from ptsdk.contracts.loss import Loss\nclass Length(Loss): pass\n", "r.py:Length", "is a loss, not a reward"),
    ],
)
def test_what_is_wrong_with_a_local_file(tmp_path: Path, text: str, reference: str, words: str) -> None:
    (tmp_path / "r.py").write_text(text)
    for _ in range(2):  # a file that failed once is not taken for a loaded module the next time
        assert words in refusal(registry().load_local, reference, "reward", tmp_path)
