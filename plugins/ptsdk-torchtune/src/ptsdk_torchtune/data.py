"""torchtune's data sets as those of ptsdk."""

from __future__ import annotations

from typing import Any

from ptsdk_torchtune.config import Config

# fmt: off
KNOWN: dict[str, dict[str, Any]] = {
    "alpaca_dataset": {"use": "instruct", "source": "tatsu-lab/alpaca"},
    "alpaca_cleaned_dataset": {"use": "instruct", "source": "yahma/alpaca-cleaned"},
    "grammar_dataset": {"use": "instruct", "source": "liweili/c4_200m", "input": "input", "output": "output"},
    "samsum_dataset": {"use": "instruct", "source": "Samsung/samsum", "input": "dialogue", "output": "summary"},
    "instruct_dataset": {"use": "instruct", "input": "input", "output": "output"},
    "chat_dataset": {"use": "chat"},
    "slimorca_dataset": {"use": "chat", "source": "Open-Orca/SlimOrca-Dedup"},
    "text_completion_dataset": {"use": "text", "column": "text"},
    "cnn_dailymail_articles_dataset": {
        "use": "text", "source": "ccdv/cnn_dailymail", "subset": "3.0.0", "column": "article",
    },
    "wikitext_dataset": {
        "use": "text", "source": "EleutherAI/wikitext_document_level", "subset": "wikitext-103-v1", "column": "page",
    },
    "preference_dataset": {"use": "preference"},
    "hh_rlhf_helpful_dataset": {"use": "preference", "source": "RLHFlow/HH-RLHF-Helpful-standard"},
    "stack_exchange_paired_dataset": {
        "use": "preference",
        "source": "lvwerra/stack-exchange-paired",
        "columns": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"},
    },
}
# fmt: on
"""Builders of torchtune: the data set of ptsdk that reads the same rows, where they are, what their columns are."""
FORMATS = ("json", "csv", "parquet", "text")
"""Names that ``datasets.load_dataset`` takes for files."""


def data(config: Config) -> dict[str, Any]:
    """The section ``data``."""
    section: dict[str, Any] = {"train": _dataset(config, "dataset")}
    if config.component("dataset_val"):
        section["validation"] = _dataset(config, "dataset_val")
    length = config.get("tokenizer.max_seq_len", config.get("dataset.max_seq_len"))
    if length is None:
        config.note("tokenizer.max_seq_len", "torchtune cuts no row; here longer ones are cut to data.max_length")
    else:
        section["max_length"] = length
    if config.get("dataset.packed", config.get("packed", False)):
        section["packing"] = True
    if not config.get("shuffle", True):
        section["shuffle"] = False
    return section


def _dataset(config: Config, place: str) -> dict[str, Any]:
    builder = config.component(place).rpartition(".")[2]
    known = KNOWN.get(builder)
    if known is None:
        what = f"the data set {builder}" if builder else "a data set without a `_component_`"
        config.refuse(place, f"{what} has no counterpart", f"known are {', '.join(sorted(KNOWN))}")
        return {}
    source = _source(config, place, known)
    if columns := _columns(config, place, known):
        source["columns"] = columns
    _told(config, place, builder)
    return {"use": known["use"], **source}


def _source(config: Config, place: str, known: dict[str, Any]) -> dict[str, Any]:
    """``path``, and ``split`` of a data set of the hub."""
    source, split = config.get(f"{place}.source", known.get("source")), config.get(f"{place}.split")
    files = config.get(f"{place}.data_files")
    if source is None:
        config.refuse(place, "it names no source", "give `source`, a data set of the hub or the format of `data_files`")
        return {}
    if source in FORMATS:
        if not isinstance(files, str):
            config.refuse(f"{place}.data_files", "one file or glob is expected", "list several under data.train")
            return {}
        if source == "text":
            config.refuse(place, "plain text files are not read", "write rows {text: ...} as JSONL")
        return {"path": files}
    if files is not None:
        config.note(f"{place}.data_files", "name the file instead: hf://datasets/org/name/path/to/file")
    subset = config.get(f"{place}.subset", config.get(f"{place}.name", known.get("subset")))
    path = f"hf://datasets/{source}" + (f"/{subset}" if subset else "")
    return {"path": path} | ({"split": split} if split not in (None, "train") else {})


def _columns(config: Config, place: str, known: dict[str, Any]) -> dict[str, str]:
    """Column that ptsdk expects -> column of the rows, where they differ."""
    given = config.get(f"{place}.column_map", {}) | _asked(config, f"{place}.column_map", ("input", "output"))
    _asked(config, f"{place}.column_map", ("prompt", "chosen", "rejected", "conversations", "messages"))
    if known["use"] == "instruct" and "input" in known:
        pairs = {"prompt": given.get("input", known["input"]), "completion": given.get("output", known["output"])}
    elif known["use"] == "text":
        pairs = {"text": config.get(f"{place}.column", known["column"])}
    elif known["use"] == "chat":
        style = config.get(f"{place}.conversation_style", "sharegpt")
        ours = "conversations" if style == "sharegpt" else "messages"
        pairs = {ours: config.get(f"{place}.conversation_column", ours)}
    else:
        pairs = {**known.get("columns", {}), **given}
    return {ours: str(theirs) for ours, theirs in pairs.items() if ours != theirs}


def _asked(config: Config, path: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Those of ``keys`` that are there."""
    found = {key: config.get(f"{path}.{key}") for key in keys}
    return {key: value for key, value in found.items() if value is not None}


def _told(config: Config, place: str, builder: str) -> None:
    """What is rendered or trained on otherwise."""
    default = builder.startswith("alpaca")
    if config.get(f"{place}.train_on_input", default):
        config.note(f"{place}.train_on_input", "here loss is on the answers alone; `text` data trains on every token")
    if builder == "stack_exchange_paired_dataset":
        config.note(place, "torchtune reads its folder data/rl alone; name a file of it to do the same")
    if builder.startswith("alpaca"):
        config.note(place, "torchtune writes rows into the Alpaca template; here into the model's chat template")
    for key in ("new_system_prompt", "prompt_template"):
        if config.get(f"{place}.{key}"):
            config.note(f"{place}.{key}", "put it into the rows, or into tokenizer.chat_template")
