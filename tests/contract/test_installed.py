"""Every component of every installed package does what its kind promises."""

from __future__ import annotations

from ptsdk.testing import suites_of

globals().update(suites_of())
