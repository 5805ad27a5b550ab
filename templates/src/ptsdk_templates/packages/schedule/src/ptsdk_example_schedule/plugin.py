"""What ptsdk-example-schedule contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_schedules() -> list[Spec]:
    """A learning-rate schedule."""
    return [
        Spec(
            "example-schedule",
            "ptsdk_example_schedule.schedule:ExampleSchedule",
            "Warm-up, then the inverse square root of the step",
        )
    ]
