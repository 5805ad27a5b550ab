"""Write the quickstart's data: spoken coffee orders and the ticket each one becomes.

    python docs/quickstart/make_data.py

The order and its ticket are composed from the same random draw, so the right answer is known and
exact match can be measured. Held-out rows repeat no order of the training rows.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
ROWS = {"train": 600, "validation": 64, "test": 100}
NUMBERS = {1: ("a", "one"), 2: ("two", "a couple of"), 3: ("three",), 4: ("four",), 6: ("six", "half a dozen")}
CUPS = ("small", "medium", "large")
DRINKS = ("latte", "cappuccino", "flat white", "green tea", "hot chocolate", "espresso", "mocha", "iced tea")
NAMES = ("Maria", "Tom", "Aisha", "Kenji", "Lena", "Omar", "Priya", "Jack", "Sofia", "Wei")
OPENINGS = ("Hi, could I get {}", "I'd like {}", "Can we have {}", "{} please", "Let me have {}", "Hello, just {}")
PLACES = {"to go": ("to go", "to take away"), "here": ("for here", "to drink in")}
ENDINGS = ("{items} {place}, for {name}", "{items} {place}. The name is {name}", "{items}, it's {place}, under {name}")


def item(rng: random.Random) -> tuple[str, str]:
    """A drink as it is said, and as the ticket has it."""
    count, cup, drink = rng.choice(list(NUMBERS)), rng.choice(CUPS), rng.choice(DRINKS)
    spoken = f"{rng.choice(NUMBERS[count])} {cup} {drink}{'s' if count > 1 else ''}"
    return spoken, f"{count} {cup} {drink}"


def row(rng: random.Random) -> dict[str, str]:
    """One order of one or two drinks."""
    items = [item(rng) for _ in range(rng.choice((1, 2)))]
    place, name = rng.choice(list(PLACES)), rng.choice(NAMES)
    spoken = rng.choice(OPENINGS).format(" and ".join(said for said, _ in items))
    order = rng.choice(ENDINGS).format(items=spoken, place=rng.choice(PLACES[place]), name=name)
    ticket = f"{'; '.join(written for _, written in items)} | {place} | {name}"
    return {"prompt": f"Order: {order}.\nTicket:", "completion": f" {ticket}"}


def main() -> None:
    """Write the three files."""
    rng = random.Random(0)
    seen: set[str] = set()
    for name, size in ROWS.items():
        rows: list[dict[str, str]] = []
        while len(rows) < size:
            new = row(rng)
            if new["prompt"] not in seen:
                seen.add(new["prompt"])
                rows.append(new)
        (HERE / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


if __name__ == "__main__":
    main()
