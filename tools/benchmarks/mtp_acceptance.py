"""How often a model's guess ahead (multi-token prediction) is its own next choice, on text that it samples itself.

  python tools/benchmarks/mtp_acceptance.py MODEL --prompts configs/tiny/world/search-test.jsonl --template $'{prompt}\\n'

MODEL: a Hugging Face directory or an r1jax checkpoint. Beside the share stands that of guessing always the token which the
model chooses most often: what chance would have accepted.
"""

from __future__ import annotations

import argparse
import collections

import jax
import numpy as np

from r1jax import sharding
from r1jax.checkpoint import load_model
from r1jax.config import DataSource, SamplerSettings
from r1jax.data import load_prompts, render_prompt
from r1jax.data.packing import PackItem, pack
from r1jax.models.logprobs import mtp_acceptance
from r1jax.rollout import Sampler, Wave


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", required=True, help="JSONL of problems")
    parser.add_argument("--template", default="none", help="of rows that name none")
    parser.add_argument("--count", type=int, default=128, help="prompts, one sample each at temperature 1")
    parser.add_argument("--max-tokens", type=int, default=120)
    arguments = parser.parse_args()

    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    model = load_model(arguments.model, mesh=layout.mesh, dtype=np.float32, rules=sharding.ROLLOUT_RULES)
    rows = load_prompts(DataSource(arguments.prompts, template=arguments.template, limit=arguments.count))
    wave = Wave(
        prompts=tuple(np.array(render_prompt(row.template, row.problem, model.tokenizer)[1], np.int32) for row in rows),
        prompt_ids=tuple(range(len(rows))),
        samples=1,
        seed=0,
        rollout=0,
        max_tokens=arguments.max_tokens,
        stop_ids=frozenset(model.config.eos_token_ids) | frozenset(model.tokenizer.eos_ids),
    )
    sequences = Sampler(model.config, layout, SamplerSettings()).run(model.params, wave)
    items = [PackItem(i, np.concatenate([s.prompt_tokens, s.tokens]), len(s.prompt_tokens)) for i, s in enumerate(sequences)]
    batch = pack(items, max(len(item.tokens) for item in items))
    with layout.use():
        counts = np.asarray(jax.jit(mtp_acceptance, static_argnums=0)(model.config, model.params, batch))
    commonest = collections.Counter(np.concatenate([s.tokens for s in sequences]).tolist()).most_common(1)[0][1]
    chance = commonest / sum(len(s.tokens) for s in sequences)
    print("depth  tokens  accepted  always the commonest")
    for depth, (agreed, said) in enumerate(counts, 1):
        print(f"{depth:5d}  {said:6.0f}  {agreed / said:8.3f}  {chance:20.3f}")


if __name__ == "__main__":
    main()
