"""What a job, a checkpoint or a template from a stranger cannot do. The threat model is docs/security.md."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ptsdk.checkpoint.sources import open_checkpoint
from ptsdk.cli.main import main
from ptsdk.errors import UserError
from ptsdk.generate.loading import find_adapter
from ptsdk.job.yaml_nodes import without
from ptsdk.plugins import DiscoveryOptions, scan
from ptsdk.redaction import SECRET_KEY, environment_secrets, hide, redact
from ptsdk.registry import Registry

CORE = Registry(scan(DiscoveryOptions(safe=True)))
JOB = """\
api: 1
model: {use: tiny, config: {hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1}}
tokenizer: bytes
data: {train: {use: instruct, path: train.jsonl}, max_length: 32}
method: sft
loss: {use: "./loss.py:Mine"}
loggers: [jsonl]
train: {steps: 1, batch_size: 2}
output_dir: run
"""
LOSS = """\
from pathlib import Path
from ptsdk.builtin.losses import CrossEntropy

Path("ran").touch()

class Mine(CrossEntropy):
    pass
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 2)
    (tmp_path / "loss.py").write_text(LOSS)
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path / "job.yaml"


# local code


@pytest.mark.parametrize("verb", ["run", "check", "data"])
def test_local_code_can_be_forbidden(job: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--safe", verb, "job.yaml", "--no-local-code"]) == 2
    assert (
        "job.yaml:6: loss.use: ./loss.py:Mine is local code, which --no-local-code forbids" in capsys.readouterr().err
    )
    assert sorted(os.listdir()) == ["job.yaml", "loss.py", "train.jsonl"]  # it did not run, and nothing was written
    assert main(["--safe", verb, "job.yaml", "--no-local-code", "~loss"]) == 0
    assert not Path("ran").exists()
    assert main(["--safe", verb, "job.yaml", "output_dir=again"]) == 0
    assert Path("ran").exists()


@pytest.mark.parametrize("variable", ["PTSDK_CACHE", "HF_HOME"])
@pytest.mark.parametrize("linked", [False, True])
def test_code_that_was_downloaded_does_not_run(
    job: Path, variable: str, linked: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = job.parent / "cache"
    cache.mkdir()
    (job.parent / "loss.py").rename(cache / "loss.py")
    monkeypatch.setenv("PTSDK_CACHE", str(cache))
    if variable == "HF_HOME":
        monkeypatch.setenv("PTSDK_CACHE", str(job.parent / "other"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(cache))
    if linked:
        (job.parent / "loss.py").symlink_to(cache / "loss.py")
    use = "./loss.py:Mine" if linked else "./cache/loss.py:Mine"
    assert main(["--safe", "check", "job.yaml", f"loss.use={use}"]) == 2
    assert "its code is not run" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_a_checkpoint_brings_no_code(job: Path, model: Path) -> None:
    """``auto_map`` is what transformers' trust_remote_code follows."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    (model / "evil.py").write_text(LOSS)
    assert main(["--safe", "run", "job.yaml", "~loss", "~model.use", "~model.config", "model.path=model"]) == 0
    assert not Path("ran").exists()


# files


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from ptsdk.builtin.tiny import Tiny

    folder = tmp_path / "model"
    folder.mkdir()
    config = {
        "architectures": ["TinyForCausalLM"],
        "model_type": "tiny",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
    }
    save_file(
        {name: torch.zeros_like(p) for name, p in Tiny().build(config).named_parameters()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "additional_chat_templates/x.jinja"],
)
def test_a_link_that_leaves_a_model_is_not_followed(model: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    file = model / name
    file.parent.mkdir(exist_ok=True)
    if file.exists():
        file.rename(secret)
    file.symlink_to(secret)
    with pytest.raises(UserError, match="a link that leaves the folder"):
        open_checkpoint("model", tmp_path, CORE)


def test_links_inside_a_folder_and_to_a_folder_are_followed(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "weights")
    (model / "model.safetensors").symlink_to("weights")
    (tmp_path / "other").symlink_to(model)
    assert open_checkpoint("other", tmp_path, CORE).config["hidden_size"] == 16


def test_a_link_that_leaves_an_adapter_or_a_tokenizer_is_not_followed(job: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    for folder, name in (("adapter", "adapter_config.json"), ("tokenizer", "tokenizer.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="a link that leaves the folder"):
        find_adapter(tmp_path / "adapter", CORE)
    assert main(["--safe", "check", "job.yaml", "~loss", "tokenizer={path: tokenizer}"]) == 2


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_weights_are_never_unpickled(job: Path, model: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (Path("ran"),)

    (model / "model.safetensors").unlink()
    torch.save(Evil(), model / f"pytorch_model{suffix}")
    for path in ("model", f"model/pytorch_model{suffix}"):
        assert main(["--safe", "run", "job.yaml", "~loss", f"model={{path: {path}}}"]) == 2
        assert "pickle" in (told := capsys.readouterr().err)
        assert "save_pretrained" in told  # how to convert
    assert not Path("ran").exists()


def test_files_have_the_permissions_of_the_umask(job: Path) -> None:
    for mask, files, folders in ((0o077, 0o600, 0o700), (0o022, 0o644, 0o755), (0o000, 0o664, 0o775)):
        before = os.umask(mask)
        try:
            assert main(["--safe", "run", "job.yaml", "~loss", f"output_dir=run{mask}", "train.save_every=1"]) == 0
        finally:
            os.umask(before)
        for path in (written := [Path(f"run{mask}"), *Path(f"run{mask}").rglob("*")]):
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = folders if path.is_dir() else files
            assert mode == wanted, f"{path}: {mode:o}"
        assert len(written) > 10


# secrets

SECRETS = {"HF_TOKEN": "hf_abcdefghijklmnop", "MY_WORD": "correct-horse", "TRACKER": "https://me:pass-word-1@host/x"}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    yield ("hf_abcdefghijklmnop", "correct-horse", "pass-word-1")


LOGGER = """
from ptsdk.contracts.events import Logger

class Tracker(Logger):
    api_key: str = ""
    url: str = ""
    note: str = ""

    def run_start(self, run):
        raise ConnectionError(f"{self.url} refused {self.api_key} {self.note}")
"""


def test_secrets_reach_no_file_and_no_message(
    job: Path, secrets: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tracker.py").write_text(LOGGER)
    text = JOB.replace('loss: {use: "./loss.py:Mine"}\n', "").replace(
        "loggers: [jsonl]",
        'loggers: [jsonl, {use: "./tracker.py:Tracker", api_key: written-out-key, url: "${env:TRACKER}", '
        'note: "${env:MY_WORD} ${env:HF_TOKEN}"}]',
    )
    job.write_text(text)
    assert main(["--safe", "run", "job.yaml", "train.save_every=1"]) == 0
    shown = capsys.readouterr()
    assert "ConnectionError" in shown.err
    everything = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert len(everything) > 10
    for secret in (*secrets, "written-out-key"):
        assert secret not in shown.out + shown.err
        assert [path for path, content in everything.items() if secret.encode() in content] == []
    assert "${env:TRACKER}" in Path("run/job.yaml").read_text()  # otherwise as given


FAILING = """
import os
from ptsdk.builtin.losses import CrossEntropy

class Mine(CrossEntropy):
    word: str = ""

    def __call__(self, *args, **options):
        raise RuntimeError(self.word + os.environ["HF_TOKEN"] + os.environ["TRACKER"])
"""


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_secrets_reach_no_error(
    job: Path, secrets: tuple[str, ...], debug: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("loss.py").write_text(FAILING)
    code = main(["--safe", *debug, "run", "job.yaml", "loss.word=${env:MY_WORD}"])
    shown = capsys.readouterr()
    assert code == 1
    assert "RuntimeError" in shown.err
    assert ("Traceback" in shown.err) == bool(debug)
    for secret in secrets:
        assert secret not in shown.out + shown.err


@pytest.mark.parametrize("verb", [["check", "--json"], ["check"], ["run"], ["data"]])
def test_credentials_of_a_url_are_not_shown(job: Path, verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe("/me:pass-word-1@host/bad.jsonl", b"x\n")
    for name in ("bad.jsonl", "none.jsonl"):
        path = f"data.train.path=memory://me:pass-word-1@host/{name}"
        code = main(["--safe", verb[0], "job.yaml", "~loss", path, *verb[1:]])
        shown = capsys.readouterr()
        assert code == (0 if verb[0] == "check" and name == "bad.jsonl" else 2)
        assert name in shown.out + shown.err
        assert "pass-word-1" not in shown.out + shown.err


WRITTEN = """\
loggers:
  - {use: x, token: t0k, password: "p\\x41b", note: t0k is a word}
  - api-key: |
      two
      lines
    credentials: &c xyz  # said again
    other: *c
    Authorization: 'it''s'
"""


def test_what_is_written_out_under_a_secret_key_is_hidden_however_it_is_written() -> None:
    assert (
        without(WRITTEN, lambda key: SECRET_KEY.search(key) is not None, "'***'")
        == """\
loggers:
  - {use: x, token: '***', password: '***', note: t0k is a word}
  - api-key: '***'
    credentials: &c '***'  # said again
    other: *c
    Authorization: '***'
"""
    )


def test_a_short_secret_is_not_in_the_copy_of_the_job(job: Path) -> None:
    Path("tracker.py").write_text(LOGGER)
    text = JOB.replace('loss: {use: "./loss.py:Mine"}\n', "")
    job.write_text(text.replace("[jsonl]", '[jsonl, {use: "./tracker.py:Tracker", api_key: k9q}]'))
    assert main(["--safe", "run", "job.yaml"]) == 0
    assert [path for path in Path("run").rglob("*") if path.is_file() and b"k9q" in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:p@ss,word@host/x", "https://***@host/x"),
        ("https://h/x?X-Amz-Signature=abc&part=1&X-Amz-Credential=q", "https://h/x?X-Amz-Signature=***&part=1&X-Amz-Credential=***"),
        ("https://h/x?sv=1&sig=a%2Fb#c", "https://h/x?sv=1&sig=***#c"),
        ("https://h/x?design=2&max_tokens=3", "https://h/x?design=2&max_tokens=3"),
        ("https://h/a of me@x", "https://h/a of me@x"),
    ],
)  # fmt: skip
def test_what_gives_access_in_a_url(url: str, shown: str) -> None:
    assert hide(url, ()) == shown


def test_what_counts_as_a_secret() -> None:
    environ = {
        "HF_TOKEN": "t" * 20,
        "AWS_SECRET_ACCESS_KEY": "k" * 20,
        "WANDB_API_KEY": "w" * 20,
        "MLFLOW_TRACKING_PASSWORD": "p" * 20,
    }
    assert environment_secrets({**environ, "HOME": "/home/somebody", "API_TOKEN": "1"}) == set(environ.values())
    assert hide("https://u:p@host/x and ttttttt", {"ttttttt"}) == "https://***@host/x and ***"
    assert redact({"api_key": "x", "n": 1, "l": ["say ttttttt"]}, {"ttttttt"}) == {
        "api_key": "***",
        "n": 1,
        "l": ["say ***"],
    }
