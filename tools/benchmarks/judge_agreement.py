"""How well a model judges: its agreement with labelled judgements, parse failures, and how far positions sway it.

  python tools/benchmarks/judge_agreement.py MODEL configs/tiny/world/judgements-test.jsonl --prompts plain \\
      --max-tokens 48 --max-prompt-tokens 128

MODEL: a Hugging Face directory or an r1jax checkpoint. The rows: JSONL with question, reference and response, or question, a and
b, and an answer that holds the right verdict ({"correctness": "correct"}, [[A>>B]]). A chat model takes --prompts chat.
"""

from __future__ import annotations

import argparse
import dataclasses

from r1jax import sharding
from r1jax.config import DataSource, JudgeSettings
from r1jax.data import load_prompts
from r1jax.evaluation.judgements import measure_judge
from r1jax.pipeline.judging import load_judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("judgements", help="JSONL of labelled judgements")
    parser.add_argument("--limit", type=int, default=0, help="the first so many rows (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    for field in dataclasses.fields(JudgeSettings):
        option, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(option, type=kind, default=field.default, help="default %(default)s")
    arguments = vars(parser.parse_args())
    settings = JudgeSettings(**{field.name: arguments[field.name] for field in dataclasses.fields(JudgeSettings)})
    rows = load_prompts(DataSource(arguments["judgements"], limit=arguments["limit"], grader="judgement"))
    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    judge = load_judge(arguments["model"], settings, layout, seed=arguments["seed"])
    for form, figures in measure_judge(judge, rows).items():
        print(form)
        for key, value in figures.items():
            shown = ", ".join(f"{v:.3f}" for v in value) if isinstance(value, list) else value
            print(f"  {key:20} {shown:.3f}" if isinstance(shown, float) else f"  {key:20} {shown}")


if __name__ == "__main__":
    main()
