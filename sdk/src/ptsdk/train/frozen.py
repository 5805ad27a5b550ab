"""Models beside the policy that do not train: a teacher, a copy to compare with."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ptsdk.checkpoint.sources import open_checkpoint
from ptsdk.checkpoint.weights import base_tensors, build_on_meta, resolve_dtype
from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.contracts.model import ModelFamily
from ptsdk.contracts.strategy import World
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.tokenizer import first_difference, piece_of
from ptsdk.errors import Problem, UserError
from ptsdk.job.job import Job
from ptsdk.nn.attention.choice import Unavailable, choose
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.registry import Registry


class Opened(NamedTuple):
    """A model that is to be built: its family, its checkpoint if it has one, its config, and the key of
    the job that a fault of the checkpoint is told at."""

    family: ModelFamily
    checkpoint: Checkpoint | None
    config: dict[str, Any]
    place: str

    def vocab_size(self) -> int:
        """Rows of its embedding, without building that."""
        return build_on_meta(self.family, self.config, torch.float32).vocab_size


def open_model(
    family: ModelFamily, job: Job, registry: Registry, *, weights: bool = True, place: str = "model.path"
) -> Opened:
    """The model of a family's options; no weight is read.

    Args:
        weights: False where none ever will be, so that none has to be fetched.
        place: the key of the job that names it.

    Raises:
        UserError: its checkpoint cannot be opened.
    """
    checkpoint = open_checkpoint(family.path, job.base, registry, weights=weights) if family.path else None
    config = checkpoint.config if checkpoint else family.full_config(family.config or {})
    return Opened(family, checkpoint, config, place)


def open_frozen(
    job: Job, registry: Registry, tokenizer: Tokenizer, policy: Opened, *, weights: bool = True
) -> dict[str, Opened]:
    """The models that the method wants beside the policy, by its names for them.

    Raises:
        UserError: one cannot be opened, or reads other tokens than the policy.
    """
    models = job.method.frozen_models(job)
    frozen = {
        name: policy
        if family is job.model
        else open_model(family, job, registry, weights=weights, place=f"method.{name}")
        for name, family in models.items()
    }
    for name, model in frozen.items():
        if model is not policy:
            refuse_other_tokens(name, model, tokenizer, policy)
    return frozen


def refuse_other_tokens(name: str, model: Opened, tokenizer: Tokenizer, policy: Opened) -> None:
    """All models read the same batches, so every id of the run must be the same piece of text to them; what
    else a model knows does not matter.

    Embeddings are often padded to different sizes over one vocabulary. That this is so, the model's
    own tokenizer has to show; without one the sizes must be equal.

    Raises:
        UserError: an id that means something else to the model, or nothing to show that none does.
    """
    path = f"method.{name}"
    theirs = model.checkpoint.tokenizer() if model.checkpoint else None
    size, ours = model.vocab_size(), policy.vocab_size()
    if theirs is None and size != ours:
        message = f"the {name} has {size} token ids, the model {ours}, and no tokenizer that shows which are the same"
        raise UserError(Problem(message, f"put the {name}'s tokenizer beside its weights", path=path))
    if theirs is not None and (at := first_difference(tokenizer, theirs)) is not None:
        known, other = piece_of(tokenizer, at), piece_of(theirs, at)
        message = f"the {name} reads other tokens: id {at} is {known!r} in this run, and {other!r} to the {name}"
        raise UserError(Problem(message, f"choose a {name} with the tokenizer that this run trains with", path=path))
    if size < min(tokenizer.vocab_size, ours):
        message = f"the {name} has {size} token ids, the tokenizer {tokenizer.vocab_size}"
        raise UserError(Problem(message, f"is the {name}'s checkpoint complete?", path=path))


def give_attention(model: CausalLM, opened: Opened, device: torch.device, dtype: torch.dtype) -> None:
    """Choose the backend that the options of a model wish for; no weight has been read.

    Raises:
        UserError: it cannot run on this device, in this dtype, or with such heads.
    """
    try:
        model.attention_backend = choose(opened.family.attention, device, dtype, model.head_dim)
    except Unavailable as error:
        key = f"{opened.place.removesuffix('.path')}.attention"
        raise UserError(Problem(str(error), f"set {key}=auto: the best that can run here", path=key)) from error


def build_frozen(job: Job, opened: Opened, world: World) -> CausalLM:
    """Such a model: sharded like the policy, in eval mode."""
    dtype = resolve_dtype(opened.family.dtype, world.device)
    model = shape_frozen(job, opened, world, dtype)
    give_attention(model, opened, world.device, dtype)
    names = [name for name, _ in model.named_parameters()]
    base = base_tensors(model, names, opened.checkpoint, job.train.seed, opened.place)
    job.strategy.load(model, base, world, dtype)
    return model.eval()


def shape_frozen(job: Job, opened: Opened, world: World, dtype: torch.dtype) -> CausalLM:
    """Such a model before it has storage.

    ``job.model`` itself is the policy training starts from, so it is quantised like the policy.
    """
    model = build_on_meta(opened.family, opened.config, dtype)
    if job.quantizer and opened.family is job.model:
        job.quantizer.prepare(model)
    return job.strategy.wrap(model.requires_grad_(False), world)
