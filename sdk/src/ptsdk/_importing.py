"""Turn a target or a local file into a class that fulfils its contract."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import warnings
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType, new_class
from typing import Any, TypeGuard

from ptsdk._guard import explain
from ptsdk._loading import Entry
from ptsdk.errors import Problem, UserError
from ptsdk.specs import KINDS


def contract_of(kind: str) -> type[Any]:
    """The base class of a kind."""
    module, _, name = KINDS[kind].contract.partition(":")
    contract: type[Any] = getattr(import_module(module), name)
    return contract


def import_target(entry: Entry) -> Any:
    """What ``entry``'s target names.

    Raises:
        UserError: it does not import, or the module has no such name.
    """
    what = f"{entry.kind} {entry.spec.name!r} of {entry.dist} {entry.version} (target {entry.spec.target})"
    module_name, _, name = entry.spec.target.partition(":")
    try:
        module = import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a third party's code may raise what is no Exception
        hint = _import_hint(error, entry)
        raise UserError(Problem(f"the {what} does not import: {explain(error)}", hint)) from error
    if not hasattr(module, name):
        raise UserError(Problem(f"the {what} is not there: {_no_attribute(module, name)}", _broken_hint(entry)))
    return getattr(module, name)


def check_class(found: object, kind: str, what: str) -> type[Any]:
    """``found`` if it is a complete class of the kind's contract.

    Raises:
        UserError: it is no class, has another base, or leaves abstract methods.
    """
    contract = contract_of(kind)
    if not isinstance(found, type):
        raise UserError(Problem(f"the {what} is {found!r}, not a class", f"it must subclass {contract.__qualname__}"))
    if not issubclass(found, contract):
        other = getattr(found, "kind", "")
        is_a = f"is a {other}, not a {kind}" if other else f"is not a {contract.__qualname__}"
        raise UserError(Problem(f"the {what} {is_a}", f"subclass {KINDS[kind].contract.replace(':', '.')}"))
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        signatures = [f"{name}{_signature(found, name)}" for name in missing]
        raise UserError(Problem(f"the {what} does not define {', '.join(missing)}", f"write {'; '.join(signatures)}"))
    return found


def _signature(cls: type[Any], name: str) -> str:
    """That of a method as the nearest base declares it; ``getattr`` would find a class's own ``__call__``."""
    declared = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
    function: Any = declared.fget if isinstance(declared, property) else getattr(declared, "__func__", declared)
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))


def import_file(reference: str, base: Path) -> tuple[object, str, str]:
    """The object that ``./file.py:Name`` names, with the file's hash; the file is relative to ``base``.

    The module is named by a hash of its path and text, so two files never meet under one name.

    Returns:
        The object, the file's SHA-256 in hex, and the path as found.

    Raises:
        UserError: no such file or name, or the file does not import.
    """
    file, _, name = reference.rpartition(":")
    if not file or not name.isidentifier():
        raise UserError(Problem(f"{reference!r} does not name a class in a file", "write ./file.py:ClassName"))
    path = (base / file).resolve()
    if not path.is_file():
        raise UserError(Problem(f"there is no file {path}", f"{file} is taken relative to {base}"))
    text = path.read_bytes()
    module = _module(path, text)
    if not hasattr(module, name):
        raise UserError(Problem(_no_attribute(module, name, str(path)), file=str(path)))
    return getattr(module, name), hashlib.sha256(text).hexdigest(), str(path)


def is_plain(found: object, kind: str) -> TypeGuard[type[Any]]:
    """Whether it is a class without a model's or another special metaclass: one to mix in."""
    meta = type(contract_of(kind))
    return isinstance(found, type) and not isinstance(found, meta) and issubclass(meta, type(found))


def mixed_in(plain: type[Any], kind: str) -> type[Any]:
    """A plain class made a component: ``class MyReward: def score(...)`` needs no base class.

    Its annotated attributes become options, as in a subclass.

    Raises:
        UserError: it has an ``__init__`` of its own, where a component has options, or annotations that
            make no options.
    """
    contract = contract_of(kind)
    if plain.__init__ is not object.__init__:
        raise UserError(
            Problem(
                f"{plain.__name__} has its own __init__, so its options cannot be read",
                f"write options as annotated attributes (`scale: float = 1.0`) or subclass {contract.__qualname__}",
            )
        )
    bases = [base for base in reversed(plain.__mro__) if base is not object]
    annotations = {key: value for base in bases for key, value in vars(base).get("__annotations__", {}).items()}
    namespace = {key: getattr(plain, key) for key in annotations if hasattr(plain, key)}
    namespace |= {"__annotations__": annotations, "__module__": plain.__module__, "__doc__": plain.__doc__}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Field name .* shadows an attribute")  # its own default, on purpose
        try:
            return new_class(plain.__name__, (plain, contract), exec_body=lambda body: body.update(namespace))
        except (TypeError, NameError, ValueError, RuntimeError) as error:
            raise UserError(Problem(f"the options of {plain.__name__} cannot be read: {explain(error)}")) from error


def _module(path: Path, text: bytes) -> ModuleType:
    """Execute exactly the bytes that were hashed; nothing is written beside the user's file."""
    name = f"ptsdk_local_{hashlib.sha256(str(path).encode() + text).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # pydantic looks a class's module up to read its annotations
    try:
        exec(compile(text, str(path), "exec"), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        line = error.lineno if isinstance(error, SyntaxError) else None
        hint = "a local file can import installed packages, not its neighbours" if _is_missing(error) else ""
        raise UserError(Problem(f"does not import: {explain(error)}", hint, str(path), line or 1)) from error
    return module


def _is_missing(error: BaseException) -> bool:
    return isinstance(error, ModuleNotFoundError)


def _import_hint(error: BaseException, entry: Entry) -> str:
    own = entry.spec.target.partition(":")[0].partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != own:
        wanted = [r for r in entry.spec.requires if r.partition(":")[0] not in (*KINDS, "device")]
        packages = " ".join(f"'{requirement}'" for requirement in wanted) or error.name.partition(".")[0]
        return f"it needs {error.name}: pip install {packages}"
    return _broken_hint(entry)


def _broken_hint(entry: Entry) -> str:
    return f"pip install -U {entry.dist}, or report it to its author"


def _no_attribute(module: ModuleType, name: str, shown: str = "") -> str:
    classes = [key for key, value in vars(module).items() if not key.startswith("_") and not inspect.ismodule(value)]
    close = get_close_matches(name, classes, n=1)
    return f"{shown or module.__name__} has no {name}" + (f"; did you mean {close[0]}?" if close else "")
