"""``ptsdk export RUN_OR_DIR --out DIR``: a trained model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.options import dtype_option

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext
    from ptsdk.contracts.checkpoint import CheckpointFormat
    from ptsdk.contracts.model import Dtype
    from ptsdk.registry import Registry

FORMATS = {"hf": "safetensors"}
"""Names of a format that are not those of its component."""


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="RUN_OR_DIR")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="What to write; it must not exist.")
@click.option("--merge", is_flag=True, help="Fold an adapter into its base, for a model that stands by itself.")
@click.option("--model", help="The adapter's base, where it is not what the adapter names.")
@click.option("--format", "layout", default="hf", show_default=True, help="hf, or what an installed plugin writes.")
@dtype_option("that of the checkpoint")
@click.pass_obj
def export(
    context: CliContext, source: Path, out: Path, merge: bool, model: str | None, layout: str, dtype: str
) -> None:
    """Write the model of a run, or of a folder of a model or an adapter, to a folder or file of its own."""
    from ptsdk.errors import UserError
    from ptsdk.generate.loading import ADAPTER

    folder = source / "final" if (source / "final").is_dir() else source
    if not folder.is_dir():
        raise UserError(f"{source} is no folder", hint="give a run's output_dir, its final/, or a model's folder")
    if out.exists():
        raise UserError(f"{out} exists already", hint="choose another --out, or move it away")
    writer = find_writer(layout, context.registry)
    is_adapter = (folder / ADAPTER).is_file()
    if merge and not is_adapter:
        raise UserError(f"{folder} holds no adapter to merge", hint="leave --merge out")
    if is_adapter and not merge:
        if layout != "hf":
            raise UserError(f"an adapter alone is no model in the format {layout}", hint="fold it in with --merge")
        copy_adapter(folder, out, context.registry)
    elif is_adapter:
        write_merged(folder, base_of(folder, model), out, writer, dtype, context.registry)
    else:
        write_model(folder, out, writer, dtype, context.registry)
    click.echo(f"wrote {out}", err=True)


def find_writer(layout: str, registry: Registry) -> CheckpointFormat:
    """The installed format of that name.

    Raises:
        UserError: none of that name writes.
    """
    from ptsdk import hints
    from ptsdk.errors import UserError

    entries = [entry for entry in registry.formats() if "write" in entry.spec.supports]
    for entry in entries:
        if entry.spec.name == FORMATS.get(layout, layout):
            writer: CheckpointFormat = registry.load(entry)()
            return writer
    known = ", ".join(["hf", *(entry.spec.name for entry in entries if entry.spec.name not in FORMATS.values())])
    plugin = hints.provider("checkpoint-format", layout)
    hint = f"pip install {plugin}" if plugin and not registry.plugins.get(plugin) else f"it can be {known}"
    raise UserError(f"no installed plugin writes the format {layout!r}", hint=hint)


def base_of(folder: Path, model: str | None) -> str:
    """The base that an adapter's own file names, as a reference, unless ``model`` is given.

    Raises:
        UserError: it names none.
    """
    from ptsdk.data.tokenizer_files import read_json
    from ptsdk.errors import UserError
    from ptsdk.generate.loading import ADAPTER

    config = read_json(folder / ADAPTER)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if model or not name:
        if not model:
            raise UserError(f"{folder / ADAPTER} names no base", hint="give it with --model")
        return model
    if "://" in name or Path(name).exists():
        return str(name)
    return f"hf://{name}@{revision}" if revision else f"hf://{name}"


def copy_adapter(folder: Path, out: Path, registry: Registry) -> None:
    """The adapter as it is, once an installed plugin has read it without a fault."""
    import shutil

    from ptsdk.checkpoint.files import atomic_folder
    from ptsdk.generate.loading import find_adapter

    find_adapter(folder, registry).load(folder)
    with atomic_folder(out) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)


def write_model(folder: Path, out: Path, writer: CheckpointFormat, dtype: str, registry: Registry) -> None:
    """A whole model, in another place, format or dtype."""
    from ptsdk.checkpoint.weights import LazyTensors
    from ptsdk.generate.loading import load_pretrained

    loaded = load_pretrained(str(folder), registry, Path(), stored_dtype(dtype, str(folder), registry))
    tensors = loaded.model.state_dict()
    lazy = LazyTensors(list(tensors), tensors.__getitem__)
    writer.write(out, lazy, loaded.checkpoint.config, loaded.tokenizer, loaded.checkpoint.generation_config())


def write_merged(folder: Path, base: str, out: Path, writer: CheckpointFormat, dtype: str, registry: Registry) -> None:
    """The base with the adapter folded in. Sums are made in float32 and rounded once."""
    from ptsdk.checkpoint.weights import LazyTensors
    from ptsdk.generate.loading import find_adapter, load_pretrained

    target = stored_dtype(dtype, base, registry)
    loaded = load_pretrained(base, registry, Path(), "float32", folder)
    merged = find_adapter(folder, registry).merged(loaded.model)
    lazy = LazyTensors(list(merged), lambda name: merged[name].to(torch_dtype(target)))
    writer.write(out, lazy, loaded.checkpoint.config, loaded.tokenizer, loaded.checkpoint.generation_config())


def stored_dtype(dtype: str, reference: str, registry: Registry) -> Dtype:
    """``auto`` as what most of a checkpoint is stored in; float32 where that is not one to train in."""
    from typing import cast

    from ptsdk.checkpoint.sources import open_checkpoint

    config = open_checkpoint(reference, Path(), registry, weights=False).config
    found = str(config.get("dtype") or config.get("torch_dtype") or "float32") if dtype == "auto" else dtype
    return cast("Dtype", found if found in ("float32", "bfloat16") else "float32")


def torch_dtype(name: str) -> Any:
    """torch's dtype of that name."""
    import torch

    return getattr(torch, name)
