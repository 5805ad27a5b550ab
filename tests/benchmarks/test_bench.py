"""The bench by itself: its runner on a small row that ptsdk does alone, its counts, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, mm_flop

from ptsdk.nn.batch import Batch
from ptsdk.nn.linear_loss import linear_cross_entropy
from ptsdk_llama.model import Llama
from ptsdk_lora.adapter import Lora
from tests.benchmarks import bench, flops
from tests.benchmarks.contestants.products import Products, operations, seconds
from tests.benchmarks.row import OURS, Contestant, Hold, Row, faster, leaner, over_best, training_metrics
from tests.benchmarks.rows import ROWS
from tests.benchmarks.training import LORA, write_items, write_job
from tests.conftest import WORDS, docs_script

benched = docs_script("benched")
SHAPE: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True,
}  # fmt: skip
STEPS = 3


def small(folder: Path) -> None:
    """A row's ``prepare``."""
    rows = [{"text": " ".join(WORDS[i % 14 :])} for i in range(40)]
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": {"use": "text", "path": "text.jsonl"}, "max_length": 96, "packing": True}
    train = {"steps": STEPS, "batch_size": 4, "micro_batch_size": 2}
    write_job(folder, {"use": "llama", "config": SHAPE}, data, train, 1e-3, tokenizer="bytes", adapter=LORA)
    write_items(folder)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    holds = (Hold("something", lambda measured: measured[OURS]["peak_bytes"], 1), faster(1.3))
    row = Row("small", "Next to nothing", {OURS: Contestant("ours")}, holds, small, training_metrics, {"other": "why"})
    folder = tmp_path_factory.mktemp("bench")
    made = bench.bench(row, 1, folder)
    items = [json.loads(line) for line in (folder / "small" / "items.jsonl").read_text().splitlines()]
    metrics = [json.loads(line) for line in (folder / "small" / "run" / "metrics.jsonl").read_text().splitlines()]
    return {**made, "items": items, "metrics": metrics, "row": json.loads((folder / "small" / "row.json").read_text())}


def test_a_round(result: dict[str, Any]) -> None:
    ours = result["contestants"][OURS]
    assert ours["tokens_per_second"] > 0 and 0 < ours["roofline"] < 1 and ours["versions"]["torch"]
    assert [ours["first_loss"], ours["last_loss"]] == [result["metrics"][i]["loss"] for i in (0, -1)]
    assert result["contestants"]["other"] == {"absent": "why"}


def test_peers_are_given_what_was_trained_on(result: dict[str, Any]) -> None:
    """Tokens and losses' tokens of each step, by the run's own count."""
    items = result["items"]
    steps = [items[i : i + 4] for i in range(0, len(items), 4)]
    counted = [[sum(len(item["tokens"]) for item in step) for step in steps], result["row"]["tokens"]]
    assert counted[0] == counted[1] == [row["tokens"] for row in result["metrics"]]
    assert result["row"]["supervised"] == [row["supervised_tokens"] for row in result["metrics"]]
    assert all(sum(item["seq_lens"]) == len(item["tokens"]) <= 96 for item in items)


def test_a_hold_without_a_peer_is_not_reached(result: dict[str, Any]) -> None:
    assert [hold["reached"] for hold in result["holds"]] == [True, False]
    assert result["holds"][1]["value"] is None


def test_holds_are_of_the_best_peer() -> None:
    measured = {
        OURS: {"tokens_per_second": 12.0, "peak_bytes": 3.0},
        "a": {"tokens_per_second": 8.0, "peak_bytes": 9.0},
        "b": {"tokens_per_second": 10.0, "peak_bytes": 6.0},
    }
    assert faster(1.3).judged(measured) == {"hold": faster(1.3).text, "value": 1.2, "reached": False}
    assert leaner(0.5).judged(measured) == {"hold": leaner(0.5).text, "value": 0.5, "reached": True}
    assert over_best("peak_bytes", max)(measured) == pytest.approx(1 / 3)


@pytest.mark.parametrize("rank", [0, 4])
def test_operations_are_those_that_torch_counts(rank: int) -> None:
    """Of the matrix products of a step, first layer's inputs apart; attention is counted by hand."""
    with torch.device("meta"):
        model = Llama().build(SHAPE)
    model = model.to_empty(device="cpu")
    lora = Lora(rank=rank or 1, alpha=8)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    if rank:
        lora.apply(model)
        for name, parameter in model.named_parameters():
            if lora.own(name):
                parameter.data = torch.randn(parameter.shape)
    lens = (5, 9, 2)
    batch = Batch.pack([list(range(n)) for n in lens], [[True] * n for n in lens])
    in_place = {torch.ops.aten.addmm_: lambda self, a, b, out_shape=None, **_: mm_flop(a, b)}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        linear_cross_entropy(model(batch), model.head(), batch.labels).backward()
    products = {"mm", "addmm", "addmm_", "bmm"}
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if str(op).split(".")[-1] in products)
    scored = sum(n - 1 for n in lens)
    expected = flops.training(SHAPE, lens, scored, rank) - 3 * flops.parts(SHAPE, lens, scored)[2]
    assert counted == expected - (first_inputs(sum(lens), rank) if rank else 0)


def first_inputs(tokens: int, rank: int) -> int:
    """What the first layer's q, k and v would send to the embedding, which is frozen."""
    return 2 * tokens * sum(a * b + rank * a for a, b in flops.projections(SHAPE)[:3])


def test_products_are_counted_as_torch_counts_them() -> None:
    """Each way a job multiplies, forward and backward: their sum is what torch's own counter says."""
    x, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((6, 5), (7, 5), (7,)))
    with FlopCounterMode(display=False) as expected, Products() as products:
        mixed = torch.nn.functional.linear(x, weight, bias) + torch.nn.functional.linear(x, weight)
        torch.bmm(mixed[None], mixed.T[None]).sum().backward()  # type: ignore[no-untyped-call]
    found = sum(count * operations(layouts) for (_, layouts), count in products.counts.items())
    assert found == expected.get_total_flops() > 0
    with torch.no_grad():
        assert all(seconds(*product) > 0 for product in products.counts)


def test_attention_sees_the_past_inside_its_window() -> None:
    for lengths, window in (((5, 3), None), ((7, 2), 3)):
        seen = sum(1 for n in lengths for q in range(n) for k in range(q + 1) if window is None or q - k < window)
        assert flops.visible(lengths, window) == seen


def test_every_row_can_be_run() -> None:
    scripts = {path.stem for path in (Path(bench.__file__).parent / "contestants").glob("*.py")}
    for name, row in ROWS.items():
        assert name == row.name and OURS in row.contestants and row.holds and row.prepare.__module__ != "__main__"
        assert {contestant.script for contestant in (*row.contestants.values(), *row.checks)} <= scripts
        assert not set(row.absent) & set(row.contestants)


@pytest.mark.parametrize(("gpu", "device"), [(None, "cpu"), ("Some GPU", "cuda")])
def test_rows_for_another_device_are_left_out(gpu: str | None, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "gpu", lambda: gpu)
    assert {ROWS[name].device for name in bench.measured_here()} == {device}
    other = next(name for name, row in ROWS.items() if row.device != device)
    monkeypatch.setattr("sys.argv", ["bench", "--rows", other])
    with pytest.raises(SystemExit, match=f"{other}: for another device"):
        bench.main()


def test_a_row_replaces_itself_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results.json")
    first, second = list(ROWS)[:2]
    for name, value in ((second, 1), (first, 2), (second, 3)):
        bench.store(name, {"value": value})
    stored = json.loads(bench.RESULTS.read_text())
    assert [(name, row["value"]) for name, row in stored.items()] == [(first, 2), (second, 3)]


def test_the_page_says_what_was_measured(
    result: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = {key: value for key, value in result.items() if key not in ("items", "metrics", "row")}
    (tmp_path / "results.json").write_text(json.dumps({"small": {**shown, "machine": bench.machine()}}))
    monkeypatch.setattr(benched, "RESULTS", tmp_path / "results.json")
    page = benched.benchmarks()
    assert "1 of 2 holds are reached" in page and "Next to nothing" in page and "* other: why." in page
    assert "**not reached**: 1.3x the fastest peer or more (not measured)" in page
