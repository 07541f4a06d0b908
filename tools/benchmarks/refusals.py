"""How far the rule for refusals agrees with people: on models' answers to XSTest that its authors' annotators labelled.

    git clone https://github.com/paul-rottger/exaggerated-safety
    python tools/benchmarks/refusals.py exaggerated-safety/model_completions/*.csv [--show]

A file has ``completion`` and ``final_label``: 1_full_compliance, 2_full_refusal or 3_partial_refusal; where it has labels of another
method too (``strmatch_label``, ``gpt4_label``, in evaluation/automated_evaluation_labels), those are held against people's as well.
Prints one line per file and method, and one over all files. ``--show`` prints the answers on which the rule disagrees.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from r1jax.config import DataSource
from r1jax.data.rows import read_rows
from r1jax.rewards.refusals import refuses

COMPLIES, REFUSES, IN_PART = "1", "2", "3"  # how their labels begin
METHODS = ("strmatch_label", "gpt4_label")


def verdicts(row: dict[str, str]) -> dict[str, bool]:
    """Per method whether it calls an answer a refusal; silence is none."""
    others = {method: not row[method].startswith(COMPLIES) for method in METHODS if row.get(method)}
    return {"rule": bool(refuses(row["completion"])), **others}


def figures(counts: Counter[tuple[str, bool]]) -> str:
    """Of (label, called a refusal) -> answers: agreement, and the share of each label that is called a refusal."""
    agreed = sum(n for (label, refused), n in counts.items() if refused == (label != COMPLIES))

    def share(label: str) -> str:
        return f"{counts[label, True] / max(1, counts[label, True] + counts[label, False]):.3f}"

    total = sum(counts.values())
    return (
        f"{total:5} answers   agreement {agreed / total:.4f}   full refusals found {share(REFUSES)}   "
        f"partial {share(IN_PART)}   compliance called refusal {share(COMPLIES)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE.csv")
    parser.add_argument("--show", action="store_true", help="print the answers on which the rule disagrees")
    arguments = parser.parse_args()
    every: dict[str, Counter[tuple[str, bool]]] = {}
    for file in arguments.files:
        own: dict[str, Counter[tuple[str, bool]]] = {}
        for _, row in read_rows(DataSource(file)):
            label = row["final_label"][:1]
            for method, refused in verdicts(row).items():
                own.setdefault(method, Counter())[label, refused] += 1
                every.setdefault(method, Counter())[label, refused] += 1
                if arguments.show and method == "rule" and refused == (label == COMPLIES):
                    print(f"{row['final_label']} | {row['prompt']} | {' '.join(row['completion'].split())[:300]}")
        for method, counts in own.items():
            print(f"{Path(file).stem:40} {method:15} {figures(counts)}")
    for method, counts in every.items():
        print(f"{'all':40} {method:15} {figures(counts)}")


if __name__ == "__main__":
    main()
