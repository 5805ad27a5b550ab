"""Who may write in a run directory, which checkpoint a run continues from, what is removed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ptsdk.checkpoint.files import write_manifest
from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.checkpoint.state import draft_checkpoint
from ptsdk.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def save(run: RunDir, *steps: int) -> None:
    for step in steps:
        weights, optimizer = {"w": torch.full((64,), float(step))}, {"state": {"w": {"m": torch.ones(9)}}}
        draft_checkpoint(step, weights, optimizer, {"step": step}).write(run)


def flip(file: Path, at: int = -3) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def names(run: RunDir) -> list[str]:
    return [path.name for path in run.checkpoints()]


def test_checkpoints_are_listed_by_number_newest_first(run: RunDir) -> None:
    assert run.checkpoints() == []
    save(run, 2, 10, 99_999_999, 100_000_000)
    (run.path / "checkpoints" / "step-x").mkdir()
    (run.path / "checkpoints" / "step-00000011").touch()
    assert names(run) == ["step-100000000", "step-99999999", "step-00000010", "step-00000002"]


def test_results_are_refused_without_resume_or_overwrite(run: RunDir) -> None:
    with run.claim():
        save(run, 1)
    message = r"checkpoints/step-00000001(.|\n)*--resume(.|\n)*--overwrite"
    with pytest.raises(UserError, match=message):
        run.check()
    with pytest.raises(UserError, match=message), run.claim():
        pass
    with run.claim(resume=True):
        assert names(run) == ["step-00000001"]
    with pytest.raises(UserError, match="exclude each other"):
        run.check(resume=True, overwrite=True)


def test_a_final_model_alone_is_not_overwritten_either(run: RunDir) -> None:
    run.final.mkdir(parents=True)
    with pytest.raises(UserError, match=r"\(final\)"):
        run.check()
    with pytest.raises(UserError, match=r"no lock\.json"):
        run.check(overwrite=True)
    assert run.final.is_dir()


def test_check_writes_nothing(run: RunDir) -> None:
    run.check()
    assert not run.path.exists()
    run.path.touch()
    with pytest.raises(UserError, match="not a directory"):
        run.check()


def test_overwrite_removes_what_a_run_wrote_and_nothing_else(run: RunDir) -> None:
    with run.claim():
        save(run, 1, 2)
        for name in ("job.yaml", "lock.json", "metrics.jsonl", "notes.txt"):
            (run.path / name).write_text("x")
        run.final.mkdir()
        (run.path / "checkpoints" / "best").mkdir()
        (run.path / "checkpoints" / ".step-00000003.0.partial").mkdir()
    with run.claim(overwrite=True):
        left = sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*"))
    assert left == [".lock", "checkpoints", "checkpoints/best", "notes.txt"]


def test_a_second_run_is_refused_until_the_first_dies(run: RunDir) -> None:
    holder = "import sys,time;from pathlib import Path;from ptsdk.checkpoint.run_dir import RunDir\n"
    holder += "with RunDir(Path(sys.argv[1])).claim():\n    print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"in use: process {process.pid} on "), run.claim(overwrite=True):
        pass
    process.kill()
    process.wait()
    with run.claim(), pytest.raises(UserError, match="in use"), run.claim():
        pass


def test_an_error_of_the_run_itself_is_not_mistaken_for_the_lock(run: RunDir) -> None:
    with pytest.raises(BlockingIOError), run.claim():
        raise BlockingIOError
    with run.claim():
        pass


def test_a_damaged_checkpoint_is_named_and_skipped(run: RunDir) -> None:
    save(run, 1, 2, 3)
    flip(run.checkpoint(3) / "model.safetensors")
    path, warnings = run.newest_intact()
    assert path == run.checkpoint(2)
    assert len(warnings) == 1 and "step-00000003 is damaged and was skipped: model.safetensors" in warnings[0]
    (run.checkpoint(2) / "manifest.json").unlink()
    path, warnings = run.newest_intact()
    assert path == run.checkpoint(1) and "step-00000002 is damaged" in warnings[1]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_flipped_bit_in_any_file_is_found(run: RunDir, file: str) -> None:
    save(run, 1)
    flip(run.checkpoint(1) / file, 40)
    with pytest.raises(UserError, match=r"step-00000001 is damaged: (.|\n)*no checkpoint(.|\n)*is intact"):
        run.newest_intact()


def test_a_manifest_of_something_else_is_not_a_checkpoint(run: RunDir) -> None:
    save(run, 1)
    (run.checkpoint(1) / "state.json").unlink()
    write_manifest(run.checkpoint(1))
    with pytest.raises(UserError, match=r"state\.json is missing"):
        run.newest_intact()


def test_no_checkpoint_at_all_is_no_error(run: RunDir) -> None:
    assert run.newest_intact() == (None, [])


def test_pruning_keeps_the_newest(run: RunDir) -> None:
    save(run, 1, 2, 3, 4)
    run.prune(None, 4)
    assert len(run.checkpoints()) == 4
    run.prune(2, 4)
    assert names(run) == ["step-00000004", "step-00000003"]


def test_pruning_after_a_resume_spares_the_only_good_one(run: RunDir) -> None:
    """Step 40 is damaged, the run went on from 20 and saved 30: 30 must stay."""
    save(run, 20, 40)
    flip(run.checkpoint(40) / "model.safetensors")
    save(run, 30)
    run.prune(1, 30)
    assert names(run) == ["step-00000040", "step-00000030"]
    save(run, 40)
    run.prune(1, 40)
    assert run.newest_intact() == (run.checkpoint(40), [])


def metrics(run: RunDir) -> list[int]:
    return [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()]


def test_metrics_are_cut_at_the_checkpoint(run: RunDir) -> None:
    run.truncate_metrics(3)
    run.path.mkdir()
    rows = "".join(json.dumps({"step": step, "loss": 0.1}) + "\n" for step in (1, 2, 2, 3, 4, 5))
    for tail in ("", '{"step": 6, "lo', '{"step": 6, "l\xc3'):
        run.metrics_file.write_text(rows + tail)
        run.truncate_metrics(3)
        assert metrics(run) == [1, 2, 2, 3]
        assert run.metrics_file.read_text() == "".join(rows.splitlines(keepends=True)[:4])


def test_metrics_damaged_in_the_middle_are_refused(run: RunDir) -> None:
    run.path.mkdir()
    run.metrics_file.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a row"):
        run.truncate_metrics(1)


def test_a_fresh_start_drops_the_metrics_of_a_run_that_died_early(run: RunDir) -> None:
    run.path.mkdir()
    run.metrics_file.write_text('{"step": 1}\n')
    with run.claim(resume=True):
        assert metrics(run) == [1]
    with run.claim():
        assert not run.metrics_file.exists()
