"""The adapter itself, imported when a job says ``adapter: example-adapter``."""

from __future__ import annotations

from ptsdk.builtin.full import Full
from ptsdk.errors import UserError
from ptsdk.nn.causal_lm import CausalLM


class ExampleAdapter(Full):
    """BitFit (arXiv:2106.10199): norms and biases train, every matrix stays as it was loaded.

    It adds no parameters, so the whole model is saved, as with core's `full`, which it builds on. An
    adapter with parameters of its own implements the whole of ``ptsdk.contracts.adapter.Adapter``
    instead: ptsdk-lora is one to read.
    """

    def apply(self, model: CausalLM) -> None:
        """Say of each parameter whether it trains, before any weight is loaded.

        Raises:
            UserError: the model has neither norms nor biases.
        """
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.ndim == 1)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError("the model has neither norms nor biases", hint="train it with another adapter")
