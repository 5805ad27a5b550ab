"""What a model family has to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ptsdk.builtin.formats import SafetensorsFolder
from ptsdk.checkpoint.export import export_model
from ptsdk.checkpoint.weights import base_tensors, build_on_meta, fill, initial_tensors, stored_shape
from ptsdk.contracts.model import ModelFamily
from ptsdk.errors import UserError
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.kv_cache import KVCache
from ptsdk.testing.checkpoints import CPU
from ptsdk.testing.suite import ComponentSuite

LENGTHS = (9, 1, 14, 5)


class ModelFamilySuite(ComponentSuite):
    """For the kind ``model-family``, on the model that ``tiny_config`` describes."""

    kind: ClassVar[str] = "model-family"

    def make(self, **options: Any) -> Any:
        """See ``Suite.make``; exactly one of path and config has to be given."""
        return super().make(**{"config": self.tiny(), **options})

    def tiny(self) -> dict[str, Any]:
        """What ``tiny_config`` says, which is asked of a family without options."""
        family: ModelFamily = self.cls.model_construct()
        return family.tiny_config()

    @property
    def family(self) -> ModelFamily:
        """The family, with ``tiny_config`` as its config."""
        made: ModelFamily = self.make()
        return made

    def config(self) -> dict[str, Any]:
        """The config in full."""
        family = self.family
        return family.full_config(family.config or {})

    def built(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> CausalLM:
        """The model, its weights made of the seed, with noise that no trait of it is idle under."""
        model = build_on_meta(self.family, self.config(), dtype)
        fill(model, initial_tensors(model, [name for name, _ in model.named_parameters()], seed), CPU, dtype)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.2 * noise.to(dtype))
        return model.eval()

    def documents(self) -> list[list[int]]:
        """Token ids of documents of several lengths."""
        generator = torch.Generator().manual_seed(1)
        size = self.built().vocab_size
        return [torch.randint(size, (length,), generator=generator).tolist() for length in LENGTHS]

    def test_config_is_whole(self) -> None:
        """Completed it names its architecture and model type, is JSON, and completing it again changes nothing."""
        config = self.config()
        assert json.loads(json.dumps(config)) == config, "the config is not plain JSON"
        declared = set(self.spec.architectures)
        assert set(config["architectures"]) <= declared, f"{config['architectures']} is not among {sorted(declared)}"
        assert config["model_type"], "the config names no model_type"
        assert self.family.full_config(config) == config, "completed twice, the config is another one"

    def test_refuses_unknown_keys(self) -> None:
        """A key of ``config:`` that the family does not read is a mistake of the user's."""
        family = self.family
        with pytest.raises(UserError):
            family.full_config({**(family.config or {}), "no_such_key_": 1})

    def test_is_built_without_storage(self) -> None:
        """On the meta device no memory is taken; shapes are told by its attributes."""
        model = build_on_meta(self.family, self.config(), torch.float32)
        real = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if not tensor.is_meta]
        assert not real, f"{', '.join(real)} have storage though the model was built on the meta device"
        assert len(model.layers) == model.num_layers, (
            f"{len(model.layers)} blocks, but num_layers is {model.num_layers}"
        )
        rows = model.head().weight.shape[0]
        assert rows == model.vocab_size, f"the head has {rows} rows, but vocab_size is {model.vocab_size}"

    def test_new_weights_are_of_the_seed_and_name(self) -> None:
        """Each is made from its generator alone, whatever was drawn before; another seed, another model."""
        model = build_on_meta(self.family, self.config(), torch.float32)
        names = [name for name, _ in model.named_parameters()]
        first = dict(initial_tensors(model, names, 0))
        torch.manual_seed(1234)
        second, other = dict(initial_tensors(model, names[::-1], 0)), dict(initial_tensors(model, names, 1))
        for name in names:
            assert first[name].isfinite().all(), f"{name} is not finite"
            assert first[name].equal(second[name]), f"{name} is another the second time, though the seed is the same"
        assert any(not first[name].equal(other[name]) for name in names), "another seed gives the same model"

    def test_a_token_changes_nothing_before_it(self) -> None:
        """Causality: the states before an edited token stay as they are, those from it on change."""
        model, document = self.built(), self.documents()[2]
        edited = [*document[:6], (document[6] + 1) % model.vocab_size, *document[7:]]
        before, after = states(model, [document]), states(model, [edited])
        assert close(before[:6], after[:6]), "a state depends on a later token"
        assert (before[6:] - after[6:]).abs().amax(1).min() > 0, "a later state does not depend on the token"

    def test_packed_documents_are_as_alone(self) -> None:
        """Documents laid end to end do not see each other."""
        model, documents = self.built(), self.documents()
        alone = torch.cat([states(model, [document]) for document in documents])
        assert close(states(model, documents), alone), "a document depends on its neighbours in a batch"

    def test_the_cache_is_the_full_pass(self) -> None:
        """Token by token with a KV cache, two texts side by side, the states are those of reading each whole."""
        model, (first, _, second, _) = self.built(), self.documents()
        texts, read = (first, second), [3, 7]
        cache = KVCache(len(texts), len(second))
        prompts = torch.tensor([token for text, end in zip(texts, read, strict=True) for token in text[:end]])
        with torch.no_grad():
            places = torch.cat([torch.arange(end) for end in read])
            model.hidden_states(prompts, places, cache.prefill(read, [[0], [1]]))
            for step in range(len(first) - read[0]):
                positions = [end + step for end in read]
                tokens = torch.tensor([text[place] for text, place in zip(texts, positions, strict=True)])
                found = model.hidden_states(tokens, torch.tensor(positions), cache.decode(positions, CPU))
                for row, (text, place, state) in enumerate(zip(texts, positions, found, strict=True)):
                    whole = states(model, [text[: place + 1]])[-1]
                    assert close(state, whole), f"the state at position {place} of row {row} is another with the cache"

    def test_every_parameter_gets_a_gradient(self) -> None:
        """None is left out of the computation."""
        model = self.built()
        batch = Batch.pack(self.documents())
        logits = model.head().logits(model(batch))
        probe = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=logits.dtype)
        (logits * probe).sum().backward()  # type: ignore[no-untyped-call]
        idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not idle, f"no gradient reaches {', '.join(idle)}"

    def test_what_is_saved_is_loaded(self) -> None:
        """Exported and opened again: the same names and the same bits; tied weights are stored once."""
        model = self.built(dtype=torch.float32)
        folder = self.exported(model)
        checkpoint = SafetensorsFolder(folder)
        again = build_on_meta(self.family, checkpoint.config, torch.float32)
        names = [name for name, _ in again.named_parameters()]
        fill(again, base_tensors(again, names, checkpoint, 0), CPU, torch.float32)
        shapes = {name: tuple(stored_shape(model, name)) for name in names}
        assert shapes == {name: checkpoint.shape(name) for name in names}, "stored shapes are not the model's"
        documents = self.documents()
        assert states(again.eval(), documents).equal(states(model, documents)), (
            "the exported model computes other states"
        )

    def test_logits_are_those_of_transformers(self) -> None:
        """Where transformers is installed and knows the architecture, its logits of the exported model."""
        transformers = pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
        config = self.config()
        name = config["architectures"][0]
        if not hasattr(transformers, name):
            pytest.skip(f"transformers has no {name} to compare with")
        model = self.built(dtype=torch.float32)
        options = {"attn_implementation": "eager", "dtype": torch.float32}
        theirs: Any = getattr(transformers, name).from_pretrained(self.exported(model), **options).eval()
        document = self.documents()[2]
        with torch.no_grad():
            expected: Tensor = theirs(torch.tensor([document])).logits[0]
            logits = model.head().logits(states(model, [document]))
        scale = float(expected.std())
        worst = float((logits - expected).abs().max())
        assert worst < 1e-3 * scale, f"logits differ by up to {worst:.3g}, their standard deviation is {scale:.3g}"

    def exported(self, model: CausalLM) -> Path:
        """A folder as `final/` of a run."""
        tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        return export_model(self.folder / "exported", tensors, self.config(), None)


@torch.no_grad()
def states(model: CausalLM, documents: list[list[int]]) -> Tensor:
    """Hidden states [N, D] of documents laid end to end."""
    hidden: Tensor = model(Batch.pack(documents))
    return hidden


def close(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding in float64, where sums may run in another order."""
    return bool(torch.allclose(a, b, rtol=1e-6, atol=1e-8))
