"""It stops a real run, and lets another finish."""

from __future__ import annotations

from pathlib import Path

import ptsdk
import pytest
from ptsdk.testing import CallbackSuite


class TestConforms(CallbackSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-callback/example-callback"  # dist/name


JOB = Path(__file__).parents[1] / "example" / "job.yaml"


@pytest.mark.parametrize(("loss", "steps"), [(100.0, 1), (0.0, 4)])
def test_steps_until_the_loss_is_low_enough(loss: float, steps: int, tmp_path: Path) -> None:
    result = ptsdk.run(JOB, overrides=[f"output_dir={tmp_path / 'run'}", f"callbacks.0.loss={loss}"])
    assert result.steps == steps
