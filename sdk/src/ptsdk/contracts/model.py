"""A model family: reads a config.json, builds the module, says how to make one from scratch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from ptsdk.contracts.component import Component
from ptsdk.nn.attention.choice import Wish
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.config import DecoderConfig
from ptsdk.nn.decoder import DecoderLM

Dtype = Literal["auto", "float32", "bfloat16"]


class ModelFamily(Component):
    """The ``model:`` section. A family subclasses this in one file beside its module.

    Exactly one of ``path`` (a checkpoint) and ``config`` (from scratch) is given.
    """

    kind: ClassVar[str] = "model-family"
    architectures: ClassVar[tuple[str, ...]] = ()

    path: str | None = Field(None, description="checkpoint: a folder, a file, or a URL such as hf://org/name")
    config: dict[str, Any] | None = Field(None, description="config.json's own keys, for a model from scratch")
    dtype: Dtype = Field("auto", description="dtype of the weights; auto is bfloat16 on a GPU, float32 on a CPU")

    attention: Wish = Field(
        "auto",
        description="how each document attends to itself: sdpa anywhere; on a GPU varlen and flex of torch, "
        "flash of the package flash-attn; auto is varlen where that can run, else sdpa",
    )

    @abstractmethod
    def build(self, config: dict[str, Any]) -> CausalLM:
        """The module of a config.json, in the default dtype and on the current device (often meta).

        Its parameters bear the names of the family's Hugging Face checkpoints.

        Raises:
            UserError: the config asks for what this family does not do; the message names the key.
        """

    @abstractmethod
    def full_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """``config`` completed with defaults, ``architectures`` and ``model_type``, so that
        transformers can read it. Unknown keys are refused.

        Raises:
            UserError: an unknown key or a bad value.
        """

    @abstractmethod
    def tiny_config(self) -> dict[str, Any]:
        """A config of some thousand parameters that uses every trait of the family (for tests)."""


class DecoderFamily(ModelFamily):
    """A family told by its settings and its module: the usual case, with nothing else to write."""

    settings: ClassVar[type[DecoderConfig]]
    """The keys of config.json that it reads."""
    module: ClassVar[type[DecoderLM]]
    """Made of its settings and of the config they were read from."""
    tiny: ClassVar[Mapping[str, Any]]
    """See ``tiny_config``."""

    def build(self, config: dict[str, Any]) -> DecoderLM:
        """See ``ModelFamily.build``."""
        make: Callable[..., DecoderLM] = self.module
        return make(self.settings.read(config), config)

    def full_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """See ``ModelFamily.full_config``."""
        return self.settings.complete(config)

    def tiny_config(self) -> dict[str, Any]:
        """See ``ModelFamily.tiny_config``."""
        return dict(self.tiny)
