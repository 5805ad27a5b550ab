"""The block beside its formulas in plain torch.

For a family that transformers has, compare logits with it instead: build both from one tiny config
and load the same weights.
"""

from __future__ import annotations

import torch
from ptsdk.nn.batch import Batch
from ptsdk.testing import ModelFamilySuite

from ptsdk_example_model_family.model import ExampleFamily, squared_relu


class TestConforms(ModelFamilySuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-model-family/example-model-family"  # dist/name


def test_squared_relu() -> None:
    assert squared_relu(torch.tensor([-2.0, 0.0, 3.0])).tolist() == [0.0, 0.0, 9.0]


def test_a_document_does_not_see_its_neighbour() -> None:
    family = ExampleFamily(config={})
    model = family.build(family.full_config(family.tiny_config())).eval()
    for name, weight in model.named_parameters():
        model.init_weight(name, weight, torch.Generator().manual_seed(len(name)))
    first, second = [5, 6, 7, 8], [9, 10, 11]
    with torch.no_grad():
        together = model(Batch.pack([first, second]))
        alone = model(Batch.pack([second]))
    torch.testing.assert_close(together[len(first) :], alone)
