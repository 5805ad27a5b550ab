"""``ptsdk quantize MODEL --out DIR``: a model in fewer bits, for whoever serves it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext
    from ptsdk.generate.loading import Pretrained
    from ptsdk_qat.quantizer import Qat

SCHEMES = ("int8-int4", "int4", "int8")
"""As the option of the quantizer; here without its module, which imports torch."""


@click.command()
@click.argument("source", metavar="RUN_OR_MODEL")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write; it must not exist.")
@click.option("--scheme", type=click.Choice(SCHEMES), help="By default what the run was trained for, else int8-int4.")
@click.option("--group-size", type=click.IntRange(2), help="Weights of a row that share a scale; int8 has one a row.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def quantize(
    context: CliContext, source: str, out: Path, scheme: str | None, group_size: int | None, as_json: bool
) -> None:
    """Write the model of a run, of a folder or of a URL with the linear layers of its blocks in 4 or 8 bits.

    transformers loads the folder as it is (it needs torchao), and so does what serves torchao's checkpoints. A run with
    `quantizer: qat` gives the model that it simulated."""
    from ptsdk.checkpoint.export import export_model
    from ptsdk.cli.output import print_json
    from ptsdk.errors import UserError

    if out.exists():
        raise UserError(f"{out} exists already", hint="choose another --out, or move it away")
    final = Path(source) / "final"
    model = str(final) if final.is_dir() else source
    chosen = choice(trained_for(Path(model)), scheme, group_size)
    loaded = load(model, context)
    before = sum(tensor.nbytes for tensor in loaded.model.state_dict().values())
    tensors, metadata, stored = quantized(loaded, chosen)
    config, generation = loaded.checkpoint.config, loaded.checkpoint.generation_config()
    export_model(out, tensors, config, loaded.tokenizer, generation, stored=stored, metadata=metadata)
    after = sum(tensor.nbytes for tensor in tensors.values())
    if as_json:
        groups = None if chosen.scheme == "int8" else chosen.groups
        told = {"path": str(out), "scheme": chosen.scheme, "group_size": groups}
        print_json({**told, "bytes": after, "bytes_before": before})
    else:
        click.echo(f"wrote {out}: {named(chosen)}, {before / 1e6:.0f} MB -> {after / 1e6:.0f} MB", err=True)


def trained_for(final: Path) -> dict[str, Any]:
    """The options of the ``qat`` that the run of a folder ``final`` trained with; empty where there was none.

    Raises:
        UserError: the run's lock cannot be read.
    """
    from ptsdk.checkpoint.reproduction import read_lock

    lock = final.resolve().parent / "lock.json"
    if final.name != "final" or not lock.is_file():
        return {}
    options = read_lock(lock)["job"].get("quantizer") or {}
    known = ("scheme", "group_size")
    return {key: options[key] for key in known if key in options} if options.get("use", "").endswith("qat") else {}


def choice(trained: dict[str, Any], scheme: str | None, group_size: int | None) -> Qat:
    """What was asked for, else what was trained for.

    Raises:
        UserError: they contradict each other.
    """
    from pydantic import ValidationError

    from ptsdk.errors import UserError
    from ptsdk_qat.quantizer import Qat

    asked = {key: value for key, value in (("scheme", scheme), ("group_size", group_size)) if value is not None}
    try:
        chosen = Qat(**(trained | asked))
    except ValidationError as error:
        raise UserError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if trained and chosen != (wanted := Qat(**trained)):
        message = f"the run was trained for {named(wanted)}, and this is another"
        raise UserError(message, hint="leave --scheme and --group-size out; its final/, copied elsewhere, takes any")
    return chosen


def named(qat: Qat) -> str:
    """For people."""
    return qat.scheme if qat.scheme == "int8" else f"{qat.scheme} in groups of {qat.groups}"


def load(model: str, context: CliContext) -> Pretrained:
    """The model, in the dtype it is stored in.

    Raises:
        UserError: there is none, or it is an adapter.
    """
    from ptsdk.cli.export import stored_dtype
    from ptsdk.errors import UserError
    from ptsdk.generate.loading import ADAPTER, load_pretrained

    if (Path(model) / ADAPTER).is_file():
        raise UserError(f"{model} is an adapter", hint="fold it in first: ptsdk export ... --merge --out DIR")
    dtype = stored_dtype("auto", model, context.registry)
    return load_pretrained(model, context.registry, Path(), dtype)


def quantized(loaded: Pretrained, chosen: Qat) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """Plain tensors, the metadata that says what they are parts of, and the keys of config.json that say so too."""
    from torchao.core.config import config_to_dict
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
    chosen.quantize(loaded.model)
    tensors, metadata = flatten_tensor_state_dict(loaded.model.state_dict())
    how = {"quant_method": "torchao", "quant_type": {"default": config_to_dict(chosen.base_config)}}
    return tensors, metadata, {"dtype": dtype, "quantization_config": how}
