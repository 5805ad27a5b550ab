"""What the tokenizer alone takes for the chats of a row: their texts made before, all of them in one batch, on all
cores. Nobody who uses it can be faster than this."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ptsdk.data.templates import render
from ptsdk.data.tokenizers import from_folder
from tests.benchmarks.contestants.report import FOLDER, row, told


def main() -> None:
    from tokenizers import Tokenizer

    folder = Path(row()["model"])
    known, alone = from_folder(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert known is not None
    lines = (FOLDER / "chats.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [render(known, json.loads(line)["messages"], None).text for line in lines]
    start = time.perf_counter()
    alone.encode_batch(texts, add_special_tokens=False)
    told(rows_per_second_of_the_tokenizer_alone=len(texts) / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
