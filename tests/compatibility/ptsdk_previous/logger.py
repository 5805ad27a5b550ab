"""A logger that remembers between events."""

from ptsdk.contracts.events import Logger


class Counted(Logger):
    """``steps.txt``, written when the run ends."""

    def run_start(self, run):
        """Nothing yet."""
        run.scratch[self] = 0

    def step(self, run, step, metrics):
        """One more."""
        run.scratch[self] += 1

    def run_end(self, run, error):
        """The number."""
        (run.output_dir / "steps.txt").write_text(str(run.scratch.pop(self)))
