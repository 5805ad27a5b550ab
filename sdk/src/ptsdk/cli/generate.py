"""``ptsdk generate``: text from a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.options import adapter_option, dtype_option, slots_option

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext
    from ptsdk.contracts.model import Dtype
    from ptsdk.contracts.rollout import Completion
    from ptsdk.contracts.tokenizer import Tokenizer
    from ptsdk.generate.loading import Pretrained
    from ptsdk.generate.sampling import SamplingParams


@click.command()
@click.option("--model", required=True, help="A checkpoint: folder, file, or URL such as hf://org/name.")
@adapter_option()
@click.option("--prompt", "prompts", multiple=True, required=True, help="The text to continue; may be given again.")
@click.option("--chat", is_flag=True, help="Each prompt is a user's message; the chat template is applied.")
@click.option("--num", type=click.IntRange(1), default=1, show_default=True, help="Completions of each prompt.")
@click.option("--max-new-tokens", type=int, default=64, show_default=True, help="Tokens of a completion at most.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="0 takes the likeliest token.")
@click.option("--top-k", type=int, help="Draw from the k likeliest tokens.")
@click.option("--top-p", type=float, help="Draw from the likeliest tokens of this mass together.")
@click.option("--min-p", type=float, help="Draw from tokens at least this fraction as likely as the likeliest.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides every draw.")
@slots_option()
@dtype_option()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def generate(
    context: CliContext,
    /,
    model: str,
    adapter: Path | None,
    prompts: tuple[str, ...],
    chat: bool,
    num: int,
    slots: int,
    dtype: Dtype,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Continue prompts with a model."""
    import torch

    from ptsdk.cli.output import print_json
    from ptsdk.generate.engine import generate as complete
    from ptsdk.generate.loading import load_pretrained
    from ptsdk.generate.sampling import SamplingParams
    from ptsdk.generate.stopping import stop_ids

    SamplingParams(**sampling)  # what is wrong with the options is said before weights are read
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    loaded = load_pretrained(model, context.registry, Path(), dtype, adapter, device)
    tokenizer = tokenizer_of(loaded)
    ids = [encode(tokenizer, text, chat) for text in prompts for _ in range(num)]
    params = SamplingParams(**sampling, stop_ids=stop_ids(loaded.checkpoint, tokenizer, chat=chat))
    stream = Stream(tokenizer, params) if len(ids) == 1 and not as_json else None
    started = time.perf_counter()
    completions = complete(loaded.model, ids, params, slots, on_token=stream)
    seconds = time.perf_counter() - started

    texts = [tokenizer.decode(written(completion)) for completion in completions]
    rate = sum(len(completion.tokens) for completion in completions) / seconds
    if as_json:
        records = [
            {"text": text, "tokens": list(completion.tokens), "finish_reason": completion.finish_reason}
            for text, completion in zip(texts, completions, strict=True)
        ]
        print_json({"completions": records, "tokens_per_second": rate})
        return
    if stream is None:
        click.echo("\n\n".join(texts))
    else:
        click.echo(texts[0].removeprefix(stream.shown))
    click.echo(f"{rate:.1f} tokens/s", err=True)


def tokenizer_of(loaded: Pretrained) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        UserError: there is none.
    """
    from ptsdk.errors import UserError

    if loaded.tokenizer is None:
        hint = "generate needs the tokenizer's files beside the weights"
        raise UserError(f"{loaded.checkpoint.path} brings no tokenizer", hint=hint)
    return loaded.tokenizer


def encode(tokenizer: Tokenizer, text: str, chat: bool) -> list[int]:
    """The ids of a prompt.

    Raises:
        UserError: it is empty, or there is no chat template that takes it.
    """
    from ptsdk.generate.prompts import chat_prompt, plain_prompt

    return chat_prompt(tokenizer, [{"role": "user", "content": text}]) if chat else plain_prompt(tokenizer, text)


def written(completion: Completion) -> list[int]:
    """The tokens of its text: the one it stopped at is not part of it."""
    return list(completion.tokens[:-1] if completion.finish_reason == "stop" else completion.tokens)


class Stream:
    """Prints the text of one completion while it grows; ``shown`` is what has been printed."""

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams) -> None:
        self.tokenizer, self.stop_ids, self.ids, self.shown = tokenizer, params.stop_ids, list[int](), ""

    def __call__(self, index: int, token: int) -> None:
        """Print what ``token`` adds, once its characters are whole."""
        if token in self.stop_ids:
            return
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids)
        if text.startswith(self.shown) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            click.echo(text.removeprefix(self.shown), nl=False)
            self.shown = text
