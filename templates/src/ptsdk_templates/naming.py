"""The names of a new package, all made of one, and which names make a sound package."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches

from ptsdk import hints
from ptsdk.errors import Problem, UserError

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
LONGEST = 40


@dataclass(frozen=True)
class Names:
    """What a component of a ``kind`` called ``name`` is called elsewhere."""

    kind: str
    name: str

    @classmethod
    def checked(cls, kind: str, name: str, kinds: Collection[str]) -> Names:
        """The names, if there is such a kind and the name makes a sound package.

        Raises:
            UserError: all that is wrong, each with what to write instead.
        """
        problems = [problem for problem in (_kind_problem(kind, kinds), _name_problem(name)) if problem]
        if problems:
            raise UserError(*problems)
        return cls(kind, name)

    @property
    def dist(self) -> str:
        """What ``pip install`` takes."""
        return f"ptsdk-{self.name}"

    @property
    def identifier(self) -> str:
        """The name in modules and functions; the package is ``ptsdk_`` and this."""
        return self.name.replace("-", "_")

    @property
    def prefix(self) -> str:
        """What class names begin with: ``label-smoothing`` -> ``LabelSmoothing``."""
        return "".join(part[:1].upper() + part[1:] for part in re.split("[-_]", self.name))


def _kind_problem(kind: str, kinds: Collection[str]) -> Problem | None:
    if kind in kinds:
        return None
    close = get_close_matches(kind, kinds, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(kinds)}"
    return Problem(f"there is no template of the kind {kind!r}", hint)


def _name_problem(name: str) -> Problem | None:
    """Why the name makes no package."""
    if not NAME.fullmatch(name) or name.startswith("ptsdk"):
        form = "a name is lower-case letters and digits with single - or _ between, and ptsdk- is put in front of it"
        better = _written_so(name)
        close = f"; did you mean {better}?" if NAME.fullmatch(better) else ""
        return Problem(f"{name!r} cannot name a package", form + close)
    if len(name) > LONGEST:
        return Problem(f"{name!r} is longer than {LONGEST} characters", "choose a shorter name")
    if hints.is_official(f"ptsdk-{name}"):
        return Problem(f"ptsdk-{name} is a package of the project itself", "choose another name")
    return None


def _written_so(name: str) -> str:
    """The name in lower case, without accents, - between its words: no letter or digit of it is lost."""
    letters = unicodedata.normalize("NFKD", name.lower())
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[^\w]+", "-", plain).strip("-_").removeprefix("ptsdk").strip("-_")
