"""Makes the tiny base model: ``python tools/make_base.py --out configs/tiny/base``.

A decoder of the Qwen2 architecture learns the small world's corpus from scratch, first the textbook, then the mixture
(``tools/world/corpus.py``), and is exported in Hugging Face's layout with its tokenizer. ``--no-check`` makes the control:
a corpus whose writers never check. Seeded: the same command gives the same kind of base, its figures within the interval
that ``configs/tiny/README.md`` states.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from world import corpus, vocabulary
from world.rows import make_rows

from r1jax import sharding
from r1jax.checkpoint import export_model
from r1jax.config import BenchmarkSource
from r1jax.data.batch import Batch
from r1jax.data.packing import PackItem, micro_batches, pack
from r1jax.losses import sft_loss, token_weights
from r1jax.models import ModelConfig, count_params, forward, head_weight, init_params
from r1jax.ops.head import selected_logprobs
from r1jax.pipeline.benchmarks import examine
from r1jax.reporting import Console

ROW_TOKENS = 128  # the longest document, a search through all 18 candidates of four numbers, just fits
ROWS = 4
POOL = 512  # documents packed together
LOG_EVERY = 500

# A base may be shipped if its accuracy on dev is so at the end of each phase; configs/tiny/README.md.
TEXTBOOK_AT_LEAST = 0.85
MIXTURE_BETWEEN = (0.10, 0.45)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Many small steps: tables of arithmetic are learnt by steps, not by tokens."""

    textbook_steps: int = 5_000
    mixture_steps: int = 1_500
    warmup_steps: int = 50
    lr: float = 2.5e-3
    final_lr_ratio: float = 0.05
    b2: float = 0.98
    weight_decay: float = 0.01

    @property
    def steps(self) -> int:
        return self.textbook_steps + self.mixture_steps

    def optimizer(self) -> optax.GradientTransformation:
        """Muon on the matrices of the layers, AdamW on the rest, updates of one size (RMS 0.2, arXiv 2502.16982)."""
        lr = optax.warmup_cosine_decay_schedule(0.0, self.lr, self.warmup_steps, self.steps, self.lr * self.final_lr_ratio)
        return optax.contrib.muon(
            lr,
            adam_learning_rate=lr,
            adam_b2=self.b2,
            weight_decay=self.weight_decay,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_matrices,
        )


def _matrices(params: dict) -> dict:
    """For each parameter which axes Muon takes as a matrix's input and output; None: not a matrix of a layer."""

    def axes(path, value):
        names = [entry.key for entry in path]
        if names[0] != "layers" or names[-1] != "kernel":
            return None
        inputs = (1, 2) if "o" in names else (1,)
        return optax.contrib.MuonDimensionNumbers(inputs, tuple(range(1 + len(inputs), value.ndim)))

    return jax.tree_util.tree_map_with_path(axes, params)


def base_config(vocab_size: int) -> ModelConfig:
    """Three layers of width 96."""
    return ModelConfig(
        architecture="qwen2",
        vocab_size=vocab_size,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        rope_theta=1_000.0,
        qkv_bias=True,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_ids=(1, 3),
        dtype="float32",
    )


def initial_params(config: ModelConfig, key: jax.Array) -> dict:
    """Random parameters, each kernel scaled by its fan-in, those that write to the residual stream by depth too."""
    width, depth = config.hidden_size, 2 * config.num_hidden_layers
    scales = {
        "embedding": 0.3,
        "o": (depth * config.num_attention_heads * config.head_dim) ** -0.5,
        "down": (depth * config.intermediate_size) ** -0.5,
    }

    def scaled(path, value):
        names = [entry.key for entry in path]
        if names[-1] not in ("kernel", "embedding"):
            return value
        return value * next((scales[name] for name in names if name in scales), width**-0.5)

    return jax.tree_util.tree_map_with_path(scaled, init_params(dataclasses.replace(config, initializer_range=1.0), key))


def batches(tokenizer, writers: corpus.Writers, seed: str) -> Iterator[Batch]:
    """Endless packed batches of the corpus, ``[ROWS, ROW_TOKENS]``; the loss is about completions and their ends."""
    random, end = Random(seed), tokenizer.token_to_id(vocabulary.EOS)
    while True:
        items = []
        for index in range(POOL):
            prompt, completion = (tokenizer.encode(text).ids for text in corpus.document(random, writers))
            items.append(PackItem(index, np.array([*prompt, *completion, end], np.int32), len(prompt)))
        whole = pack(items, ROW_TOKENS)
        order = random.sample(range(len(whole.tokens)), len(whole.tokens) // ROWS * ROWS)
        for batch in micro_batches(Batch(*(None if x is None else x[order] for x in whole)), ROWS):
            weight = token_weights(batch.completion_mask, batch.sequence_index, rule="token_mean")
            yield batch._replace(token_weight=weight)


def pretrain(
    config: ModelConfig, tokenizer, schedule: Schedule, phases: tuple[corpus.Writers, corpus.Writers], seed: int
) -> dict:
    """Trains from random parameters and yields the parameters at the end of each phase."""
    params = initial_params(config, jax.random.key(seed))
    optimizer = schedule.optimizer()
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch):
        def loss(params):
            hidden, _, _ = forward(config, params, batch.tokens, batch.positions, batch.segment_ids)
            logprobs, _ = selected_logprobs(hidden[:, :-1], head_weight(config, params), batch.tokens[:, 1:])
            return sft_loss(jnp.pad(logprobs, ((0, 0), (1, 0))), batch.token_weight)[0]

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    start = time.monotonic()
    streams = [batches(tokenizer, writers, f"{seed} {phase}") for phase, writers in enumerate(phases)]
    for number in range(1, schedule.steps + 1):
        params, state, loss = step(params, state, next(streams[number > schedule.textbook_steps]))
        if number % LOG_EVERY == 0 or number == schedule.steps:
            print(f"step {number:5d}  loss {float(loss):.3f}  {time.monotonic() - start:.0f} s", flush=True)
            if not math.isfinite(float(loss)):
                raise FloatingPointError(f"the loss is {float(loss)} at step {number}")
        if number in (schedule.textbook_steps, schedule.steps):
            yield params


def dev_accuracy(model: Path) -> float:
    """pass@1 on the world's dev problems of search, four samples each at temperature 1, by r1jax's own sampler and grader."""
    rows = make_rows("search", "dev", 0)
    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    with tempfile.TemporaryDirectory() as folder, Console() as console, examine(str(model), layout, console) as ask:
        path = Path(folder) / "search-dev.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        figures, _ = ask(
            "dev", BenchmarkSource(str(path), samples=4, temperature=1.0, top_p=1.0, max_tokens=ROW_TOKENS - 10)
        )
    return figures["pass@1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-check", action="store_true", help="the control: a corpus without checking")
    parser.add_argument("--textbook-steps", type=int, default=Schedule.textbook_steps)
    parser.add_argument("--mixture-steps", type=int, default=Schedule.mixture_steps)
    arguments = parser.parse_args()
    phases = (corpus.NO_CHECK_TEXTBOOK, corpus.NO_CHECK_MIXTURE) if arguments.no_check else (corpus.TEXTBOOK, corpus.MIXTURE)
    schedule = Schedule(textbook_steps=arguments.textbook_steps, mixture_steps=arguments.mixture_steps)
    accuracies = []
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = vocabulary.write_tokenizer(Path(folder))
        config = base_config(tokenizer.get_vocab_size())
        print(f"{count_params(config):,} parameters; {json.dumps(dataclasses.asdict(schedule))}", flush=True)
        finished = pretrain(config, tokenizer, schedule, phases, arguments.seed)
        for phase, out in (("textbook", Path(folder) / "textbook"), ("mixture", arguments.out)):
            export_model(out, config, next(finished), folder)
            accuracies.append(dev_accuracy(out))
            print(f"accuracy on dev after the {phase}: {accuracies[-1]:.3f}", flush=True)
    if not arguments.no_check:
        met = accuracies[0] >= TEXTBOOK_AT_LEAST and MIXTURE_BETWEEN[0] <= accuracies[1] <= MIXTURE_BETWEEN[1]
        print(f"the criterion for a base to ship is {'' if met else 'not '}met")


if __name__ == "__main__":
    main()
