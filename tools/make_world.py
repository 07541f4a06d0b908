"""Writes the splits of the small world: ``python tools/make_world.py --seed 0 --out configs/tiny/world``.

One JSONL file per kind and split, ``search-train.jsonl``, ``search-dev.jsonl``, ``search-test.jsonl`` and so on. The page is
``configs/tiny/README.md``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from world.rows import COUNTS, make_rows


def write_world(seed: int, out: Path) -> dict[str, int]:
    """Writes every file of the world into ``out`` and returns the number of rows by file name."""
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for kind, splits in COUNTS.items():
        for split in splits:
            rows = make_rows(kind, split, seed)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (out / f"{kind}-{split}.jsonl").write_text(text, encoding="utf-8")
            written[f"{kind}-{split}.jsonl"] = len(rows)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seed", type=int, default=0, help="picks and orders the rows; never moves a problem between splits"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    arguments = parser.parse_args()
    for name, rows in write_world(arguments.seed, arguments.out).items():
        print(f"{rows:6d} rows  {arguments.out / name}")


if __name__ == "__main__":
    main()
