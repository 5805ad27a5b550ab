"""Dists as pip leaves them on disk, each wrong in one way. Built into a folder that a test puts on ``sys.path``.

They are kept as text because files that cannot be compiled or imported would trip every tool that
reads the tree.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HEAD = "from ptsdk.specs import LossSpec, MethodSpec, Spec\nPTSDK_API = 1\n"
LOSS = "class Zero:\n    pass\n"


@dataclass(frozen=True)
class Dist:
    """A dist of one package: the text of ``plugin.py``, other modules, words of the error it earns, and
    what it requires."""

    name: str
    plugin: str
    says: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    version: str = "1.0"
    entry_points: str = ""
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """Its import name."""
        return self.name.replace("-", "_")

    def install(self, folder: Path) -> Path:
        """Write package and metadata under ``folder``, as an unpacked wheel lies there."""
        files = {f"{self.package}/__init__.py": "", f"{self.package}/plugin.py": self.plugin}
        files |= {f"{self.package}/{path}": text for path, text in self.modules.items()}
        info = f"{self.package}-{self.version}.dist-info"
        points = self.entry_points or f"[ptsdk]\n{self.name} = {self.package}.plugin\n"
        head = f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n"
        extras = "".join(f"Provides-Extra: {one}\n" for one in self.extras)
        requires = "".join(f"Requires-Dist: {one}\n" for one in self.requires)
        files[f"{info}/METADATA"] = head + extras + requires
        files[f"{info}/entry_points.txt"] = points
        record = "".join(f"{path},{_hash(text)},{len(text.encode())}\n" for path, text in files.items())
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        return folder


def _hash(text: str) -> str:
    return "sha256=" + urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def losses(body: str) -> str:
    """A ``plugin.py`` with one hook of that body."""
    return f"{HEAD}\n\ndef ptsdk_losses():\n    {body}\n"


def healthy(name: str, loss: str, version: str = "1.0") -> Dist:
    """A sound dist that provides one loss."""
    package = name.replace("-", "_")
    spec = f'return [LossSpec("{loss}", "{package}.losses:Zero", "Nothing at all")]'
    return Dist(name, losses(spec), (), {"losses.py": LOSS}, version)


BROKEN = (
    Dist("ptsdk-x-import", f"{HEAD}import nowhere_to_be_found\n", ("ModuleNotFoundError", "nowhere_to_be_found")),
    Dist("ptsdk-x-syntax", "PTSDK_API = = 1\n", ("SyntaxError", "plugin.py")),
    Dist("ptsdk-x-exit", f"{HEAD}import sys\nsys.exit(3)\n", ("SystemExit", "3")),
    Dist("ptsdk-x-base", f"{HEAD}class Panic(BaseException): pass\nraise Panic('at the disco')\n", ("Panic: at the",)),
    Dist(
        "ptsdk-x-mute",
        f"{HEAD}class Mute(Exception):\n    def __str__(self): return 1 / 0\nraise Mute\n",
        ("Mute: (its message",),
    ),
    Dist("ptsdk-x-raise", f"{HEAD}raise RuntimeError('two\\nlines')\n", ("RuntimeError: two lines", "plugin.py:3")),
    Dist(
        "ptsdk-x-unknown", f"{HEAD}def ptsdk_loses():\n    return []\n", ("ptsdk_loses", "did you mean ptsdk_losses?")
    ),
    Dist(
        "ptsdk-x-marked",
        f"{HEAD}from ptsdk.hookspecs import hookimpl\n@hookimpl\ndef run_start(run):\n    pass\n",
        ("run_start is no hook",),
    ),
    Dist("ptsdk-x-argument", f"{HEAD}def ptsdk_losses(run):\n    return []\n", ("'run'", "take no arguments")),
    Dist("ptsdk-x-api99", HEAD.replace("API = 1", "API = 99"), ("plugin API 99", "pip install -U ptsdk")),
    Dist("ptsdk-x-api-old", HEAD.replace("API = 1", "API = -1"), ("plugin API -1", "pip install -U ptsdk-x-api-old")),
    Dist("ptsdk-x-api-none", "def ptsdk_losses():\n    return []\n", ("write `PTSDK_API = 1`",)),
    Dist("ptsdk-x-api-text", HEAD.replace("API = 1", "API = '1'"), ("PTSDK_API = '1'", "write `PTSDK_API = 1`")),
    Dist("ptsdk-x-junk", losses("return [42]"), ("ptsdk_losses()", "42", "list of LossSpec")),
    Dist("ptsdk-x-none", losses("pass"), ("ptsdk_losses() returned None", "list of LossSpec")),
    Dist("ptsdk-x-number", losses("return 7"), ("ptsdk_losses() returned 7", "list of LossSpec")),
    Dist("ptsdk-x-one", losses('return LossSpec("a", "a:B")'), ("ptsdk_losses() returned LossSpec", "list of")),
    Dist(
        "ptsdk-x-other",
        losses('return [MethodSpec("m", "os:path")]'),
        ("ptsdk_losses() returned the MethodSpec 'm'", "LossSpec"),
    ),
    Dist("ptsdk-x-raises", losses("return 1 / 0"), ("ptsdk_losses()", "ZeroDivisionError", "plugin.py:6")),
    Dist("ptsdk-x-exits", losses("raise SystemExit(1)"), ("ptsdk_losses()", "SystemExit")),
    Dist(
        "ptsdk-x-cancels",
        losses("from asyncio import CancelledError; raise CancelledError('late')"),
        ("ptsdk_losses()", "CancelledError: late"),
    ),
    Dist("ptsdk-x-yields", losses("yield 1 / 0"), ("ptsdk_losses()", "ZeroDivisionError")),
    Dist("ptsdk-x-name", losses('return [Spec("Bad Name", "os:path")]'), ("ptsdk_losses()", "'Bad Name'")),
    Dist("ptsdk-x-twice", losses('return [Spec("a", "os:path"), Spec("a", "os:sep")]'), ("two", "'a'")),
    Dist(
        "ptsdk-x-field",
        losses('return [Spec("a", "os:path", requires="numpy")]'),
        ("requires of 'a' is 'numpy'", "tuple of strings"),
    ),
    Dist(
        "ptsdk-x-kind",
        losses('return [Spec("a", "os:path", requires=("adaptor:lora",))]'),
        ("requires of 'a' has 'adaptor:lora'", "did you mean adapter:lora?"),
    ),
    Dist(
        "ptsdk-x-demand",
        losses('return [Spec("a", "os:path", requires=("numpy >= ",))]'),
        ("requires of 'a' has 'numpy >= '", "write kind:name, device:type or a PEP 508 requirement"),
    ),
    Dist(
        "ptsdk-x-conflict",
        losses('return [Spec("a", "os:path", conflicts=("lora",))]'),
        ("conflicts of 'a' has 'lora'", "write kind:name or kind:+capability"),
    ),
    Dist("ptsdk-x-target", losses('return [Spec("a", "ptsdk_x_target.gone:A")]'), ("gone:A", "not exist")),
    Dist("ptsdk-x-heavy", f"import torch\n{HEAD}", ("imports torch", "ptsdk.specs and the standard library")),
    Dist(
        "ptsdk-x-optional",
        f"import ptsdk_x_optional.soft\n{HEAD}",
        ("imports pydantic",),
        {"soft.py": "try:\n    import pydantic\nexcept ImportError:\n    pydantic = None\n"},
    ),
    Dist(
        "ptsdk-x-indirect",
        f"{HEAD}def ptsdk_losses():\n    from ptsdk_x_indirect.net import NAMES\n    return NAMES\n",
        ("ptsdk_losses()", "imports torch"),
        {"net.py": "from torch import nn\nNAMES = []\n"},
    ),
    Dist("ptsdk-x-point", HEAD, ("'not a module'",), {}, "1.0", "[ptsdk]\na = not a module\n"),
    Dist("ptsdk-x-line", HEAD, ("entry_points.txt",), {}, "1.0", "[ptsdk]\nno equals sign\n"),
)
"""One mistake each."""
