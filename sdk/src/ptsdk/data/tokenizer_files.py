"""The files around a tokenizer: tokenizer_config.json, special tokens, chat templates.

The rules of precedence are transformers' own: template files win over tokenizer_config.json, and
special_tokens_map.json and added_tokens.json are read only where the config lists no added tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptsdk.errors import Problem, UserError

CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that every tokenizer may name, in the order transformers lists them."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: not UTF-8, not JSON or not an object; names the line.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(Problem(f"not UTF-8: {error.reason} at byte {error.start}", file=str(path))) from error
    except json.JSONDecodeError as error:
        problem = Problem(f"not JSON: {error.msg}", "fetch the file again", str(path), error.lineno)
        raise UserError(problem) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
        raise UserError(Problem(f"cannot be read: {error}", "fetch the file again", str(path))) from error
    if not isinstance(values, dict):
        raise UserError(Problem(f"expected a JSON object, found {type(values).__name__}", file=str(path)))
    return values


def read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, completed from the older files beside it.

    ``add_bos_token`` and ``add_eos_token`` are dropped where there is a tokenizer.json: its
    post-processor decides, as in transformers.
    """
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if (folder / "tokenizer.json").is_file():
        config.pop("add_bos_token", None)
        config.pop("add_eos_token", None)
    if "added_tokens_decoder" not in config:
        if (folder / "special_tokens_map.json").is_file():
            config.update(_special_tokens_map(folder / "special_tokens_map.json"))
        if (folder / "added_tokens.json").is_file():
            config["added_tokens_decoder"] = _added_tokens(folder / "added_tokens.json", special_texts(config))
    return config


def _special_tokens_map(path: Path) -> dict[str, Any]:
    def special(value: Any) -> Any:
        return {**value, "special": True} if isinstance(value, dict) and "content" in value else value

    return {k: [*map(special, v)] if isinstance(v, list) else special(v) for k, v in read_json(path).items()}


def _added_tokens(path: Path, specials: set[str]) -> dict[str, dict[str, Any]]:
    return {
        str(index): {"content": text, "special": text in specials, "normalized": text not in specials}
        for text, index in read_json(path).items()
    }


def read_templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Chat templates by name; ``default`` is the one used without tools."""
    found: dict[str, str] = {}
    if (folder / TEMPLATE).is_file():
        found["default"] = (folder / TEMPLATE).read_text(encoding="utf-8")
    for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja")):
        found[path.name.removesuffix(".jinja")] = path.read_text(encoding="utf-8")
    if found:
        return found
    templates = config.get("chat_template")
    if templates is None and (folder / "chat_template.json").is_file():
        templates = read_json(folder / "chat_template.json").get("chat_template")
    return named_templates(templates)


def named_templates(value: Any) -> dict[str, str]:
    """The ``chat_template`` of a config, which is a string, or a list of ``{name, template}``."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        return {str(entry["name"]): str(entry["template"]) for entry in value}
    return {str(name): str(template) for name, template in value.items()}


def content(token: Any) -> str | None:
    """The text of a special token, written as a string or as ``{content, ...}``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Every named special token, the usual names first, then a model's own ``*_token`` keys."""
    own = dict(config.get("model_specific_special_tokens") or {})
    own.update({k: v for k, v in config.items() if k.endswith("_token") and k not in NAMED})
    extra = config.get("extra_special_tokens")
    if isinstance(extra, dict):
        own.update(extra)
    named = {**{key: config.get(key) for key in NAMED}, **own}
    return {key: text for key, value in named.items() if (text := content(value)) is not None}


def extra_tokens(config: dict[str, Any]) -> list[Any]:
    """Special tokens without a name, each a string or ``{content, ...}``."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    return list(extra) if isinstance(extra, list) else []


def special_texts(config: dict[str, Any]) -> set[str]:
    """The texts of all special tokens that a config names."""
    extra = {text for token in extra_tokens(config) if (text := content(token)) is not None}
    return set(special_tokens(config).values()) | extra


def write_config(folder: Path, config: dict[str, Any], templates: dict[str, str]) -> None:
    """tokenizer_config.json and the template files, as ``save_pretrained`` lays them out."""
    dropped = {"chat_template", "name_or_path", "auto_map", "tokenizer_file", "vocab_file"}
    text = json.dumps({k: v for k, v in config.items() if k not in dropped}, indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    for name, template in templates.items():
        path = folder / TEMPLATE
        if name != "default":
            if Path(name).name != name:
                raise UserError(f"a chat template cannot be named {name!r}", hint="use a plain file name")
            (folder / MORE_TEMPLATES).mkdir(exist_ok=True)
            path = folder / MORE_TEMPLATES / f"{name}.jinja"
        path.write_text(template, encoding="utf-8")
