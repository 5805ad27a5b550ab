"""Events: who hears them, what a broken listener does, and early stopping."""

from __future__ import annotations

import json
import math
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from ptsdk.builtin.callbacks import EarlyStopping
from ptsdk.contracts.events import Callback, Logger, RunListener
from ptsdk.errors import UserError
from ptsdk.hookspecs import RunEvents
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.events import EVENTS, RunEventBus, overridden
from ptsdk.train.worker import Late, Worker


def new_run() -> Any:
    return SimpleNamespace(scratch={})


class Heard(Logger):
    """Notes every event it is told of."""

    tag: str = ""

    def run_start(self, run):
        run.scratch.setdefault("heard", []).append(f"{self.tag}run_start")

    def step(self, run, step, metrics):
        run.scratch.setdefault("heard", []).append(f"{self.tag}step {step} {metrics['loss']}")

    def run_end(self, run, error):
        run.scratch.setdefault("heard", []).append(f"{self.tag}run_end {error!r}")


class Broken(Callback):
    def step(self, run, step, metrics):
        raise OSError("disk full")

    def should_stop(self, run, step, metrics):
        raise ValueError("no idea")

    def state(self, run):
        raise KeyError("nothing")


class Stop(Callback):
    reason: str | None = None

    def should_stop(self, run, step, metrics):
        return self.reason


def test_the_bus_has_every_event_of_the_hookspecs():
    assert set(EVENTS) == {name for name in vars(RunEvents) if not name.startswith("_")}
    assert all(callable(getattr(RunEventBus, event)) for event in EVENTS)
    listener_events = {name for name in vars(Callback) | vars(RunListener) if name in EVENTS}
    assert listener_events == set(EVENTS)


def test_only_overridden_events_are_implementations():
    assert overridden(Heard()) == ["run_start", "step", "run_end"]
    assert overridden(Stop()) == ["should_stop"]
    assert overridden(Callback()) == []


def test_listeners_hear_in_order_and_only_those_named():
    run = new_run()
    bus = RunEventBus([Heard(tag="a "), Heard(tag="b ")])
    bus.run_start(run)
    bus.step(run, 1, {"loss": 2.0})
    bus.validation(run, 1, {})
    bus.run_end(run, None)
    assert run.scratch["heard"] == [
        "a run_start", "b run_start", "a step 1 2.0", "b step 1 2.0", "a run_end None", "b run_end None",
    ]  # fmt: skip
    other = new_run()
    RunEventBus([]).run_start(other)
    assert not other.scratch


def test_a_broken_listener_is_reported_once_and_starves_nobody(capsys):
    run = new_run()
    bus = RunEventBus([Broken(), Heard(), Stop(reason="enough")])
    for step in (1, 2):
        bus.step(run, step, {"loss": 0.5})
    assert bus.should_stop(run, 2, {}) == "enough"
    assert bus.state(run) == {}
    assert run.scratch["heard"] == ["step 1 0.5", "step 2 0.5"]
    error = capsys.readouterr().err
    assert error == "ptsdk: callback Broken failed in step: OSError: disk full\n    the run goes on; said once\n"


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, BaseException])
def test_a_listener_cannot_end_the_process(capsys, error):
    class Leaves(Logger):
        def step(self, run, step, metrics):
            raise error(5)

    RunEventBus([Leaves()]).step(new_run(), 1, {})
    assert f"logger Leaves failed in step: {error.__name__}: 5" in capsys.readouterr().err


def test_interrupts_are_not_swallowed():
    class Interrupted(Logger):
        def step(self, run, step, metrics):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunEventBus([Interrupted()]).step(new_run(), 1, {})


def test_the_first_reason_wins():
    bus = RunEventBus([Stop(), Stop(reason="first"), Stop(reason="second")])
    assert bus.should_stop(new_run(), 1, {}) == "first"
    assert RunEventBus([Stop(), Heard()]).should_stop(new_run(), 1, {}) is None


def feed(bus: RunEventBus, run: Any, values: list[float], first: int = 1) -> list[int]:
    """Validations one after the other; the steps at which the bus wants to stop."""
    stops = []
    for step, value in enumerate(values, first):
        bus.step(run, step, {"loss": 100.0 + step})
        bus.validation(run, step, {"step": step, "val/loss": value})
        if bus.should_stop(run, step, {}):
            stops.append(step)
    return stops


@pytest.mark.parametrize(
    ("options", "values", "stops"),
    [
        ({"patience": 2}, [3, 2, 2, 2, 2], [4, 5]),
        ({"patience": 2}, [3, 2, 2.5, 1.9, 2, 2], [6]),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.4, 2.0, 1.4], [3]),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.4, 1.8], []),
        ({"patience": 1, "mode": "max"}, [1, 2, 1.5], [3]),
        ({"patience": 2}, [math.nan, math.nan, 1], [2]),
        ({"patience": 2}, [math.nan, 1, math.nan, math.nan], [4]),
    ],
)
def test_early_stopping(options, values, stops):
    assert feed(RunEventBus([EarlyStopping(**options)]), new_run(), values) == stops


def test_early_stopping_says_why():
    run = new_run()
    bus = RunEventBus([EarlyStopping(patience=2)])
    feed(bus, run, [2.5, 1.25, 1.5, 1.5])
    assert bus.should_stop(run, 4, {}) == "val/loss has not improved 2 times in a row; best was 1.25 at step 2"


def test_early_stopping_on_a_metric_of_training():
    assert feed(RunEventBus([EarlyStopping(metric="loss", patience=2)]), new_run(), [1, 1, 1]) == [3]


def test_a_resumed_run_stops_where_an_unbroken_one_does():
    values = [3.0, 2.0, 2.1, 2.2, 2.3]
    callbacks = [Heard(), EarlyStopping(patience=3), EarlyStopping(patience=9, metric="loss")]
    straight = feed(RunEventBus(callbacks), new_run(), values)
    run = new_run()
    bus = RunEventBus(callbacks)
    feed(bus, run, values[:3])
    states = json.loads(json.dumps(bus.state(run)))
    assert set(states) == {"callback EarlyStopping", "callback EarlyStopping #2"}
    again, resumed = RunEventBus(callbacks), new_run()
    again.restore(resumed, states)
    again.run_start(resumed)
    assert feed(again, resumed, values[3:], first=4) == straight == [5]
    RunEventBus([Heard()]).restore(new_run(), states)


def test_a_metric_that_never_comes_is_refused(tmp_path):
    job = {
        "api": 1,
        "model": {"use": "tiny", "config": {}},
        "data": {"train": {"use": "text", "path": "train.jsonl"}},
        "method": "sft",
        "tokenizer": {"use": "bytes"},
        "callbacks": [{"use": "early_stopping"}],
        "output_dir": "run",
    }
    path, registry = tmp_path / "job.yaml", Registry(scan())
    path.write_text(json.dumps(job))
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UserError) as caught:
        load_job(path, (), registry)
    (problem,) = caught.value.problems
    assert problem.path == "callbacks" and "needs data.validation" in problem.message and problem.line == 1
    load_job(path, ("data.validation={use: text, path: train.jsonl}",), registry)
    load_job(path, ("callbacks=[{use: early_stopping, metric: loss}]",), registry)


def test_impossible_options_are_refused():
    with pytest.raises(ValidationError):
        EarlyStopping(patience=0)


class Hangs(Logger):
    """Returns from its second step only when it is let go; notes all it is told."""

    timeout: float | None = 0.05

    def step(self, run, step, metrics):
        if step == 2:
            run.scratch["let go"].wait(30)
        run.scratch.setdefault("told", []).append(step)

    def state(self, run):
        return {"told": len(run.scratch.get("told", []))}

    def run_end(self, run, error):
        run.scratch.setdefault("told", []).append("end")


def test_a_listener_that_hangs_is_left_behind_and_catches_up(capsys):
    run = new_run()
    run.scratch["let go"] = threading.Event()
    bus = RunEventBus([Hangs(), Heard()])
    bus.step(run, 1, {"loss": 0.5})
    assert bus.state(run) == {"logger Hangs": {"told": 1}}
    for step in (2, 3, 4):
        bus.step(run, step, {"loss": 0.5})
    assert bus.state(run) == {"logger Hangs": {"told": 1}}, "what it said last"
    assert run.scratch["heard"] == [f"step {step} 0.5" for step in (1, 2, 3, 4)]
    assert run.scratch["told"] == [1]
    run.scratch["let go"].set()
    bus.run_end(run, None)  # waits for what has lined up
    assert run.scratch["told"] == [1, 2, 3, 4, "end"]
    said = capsys.readouterr().err
    assert said == (
        "ptsdk: logger Hangs has not returned from step for 0.05 s\n    the run does not wait for it; said once\n"
    )


def test_a_run_ends_beside_a_listener_that_never_returns():
    run = new_run()
    run.scratch["let go"] = threading.Event()
    bus = RunEventBus([Hangs(), Heard()])
    bus.step(run, 2, {"loss": 0.5})
    bus.run_end(run, None)
    assert run.scratch["heard"] == ["step 2 0.5", "run_end None"] and "told" not in run.scratch
    run.scratch["let go"].set()


def test_a_listener_may_be_waited_for_for_ever():
    class Slow(Heard):
        def step(self, run, step, metrics):
            time.sleep(0.1)
            super().step(run, step, metrics)

    run = new_run()
    RunEventBus([Slow(timeout=None)]).step(run, 1, {"loss": 0.5})
    assert run.scratch["heard"] == ["step 1 0.5"]
    with pytest.raises(ValidationError):
        Slow(timeout=0)


def test_a_full_backlog_drops_the_newest(monkeypatch):
    monkeypatch.setattr("ptsdk.train.worker.BACKLOG", 3)
    go, made = threading.Event(), []
    worker = Worker(0.1)
    with pytest.raises(Late):
        worker.call(go.wait)
    for number in range(6):
        with pytest.raises(Late):
            worker.call(made.append, number)
    go.set()
    assert worker.call(list, made, wait=True) == [0, 1, 2]
