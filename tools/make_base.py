"""Makes the tiny base models: ``python tools/make_base.py --out configs/tiny/base``.

A decoder of the Qwen2 or, with ``--architecture``, of the DeepSeek-V3 or Llama architecture learns the small world's corpus
from scratch, first the textbook, then the mixture (``tools/world/corpus.py``), and is exported in Hugging Face's layout with its
tokenizer. ``--no-check`` makes the control: a corpus whose writers never check. Seeded: the same command gives the same kind of
base, its figures within the interval that ``configs/tiny/README.md`` states.
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
from r1jax.losses import mtp_loss, router_bias_update, sft_loss, token_weights
from r1jax.models import ModelConfig, count_params, init_params, statistics
from r1jax.models.logprobs import mtp_acceptance, mtp_logprobs, token_logprobs
from r1jax.models.published import PUBLISHED
from r1jax.pipeline.benchmarks import examine
from r1jax.reporting import Console
from r1jax.training import router_loss

DOCUMENT_TOKENS = 128  # the longest document, a search through all 18 candidates of four numbers; a BOS not counted
ROWS = 4
POOL = 512  # documents packed together
LOG_EVERY = 500

# Of the DeepSeek-V3 base; DeepSeek-V3's own (arXiv 2412.19437 section 4.2).
BALANCE_COEFFICIENT = 1e-4
BIAS_RATE = 1e-3
MTP_COEFFICIENT = 0.3

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


def _fan_in_axes(names: list[str]) -> tuple[int, ...] | None:
    """The input axes of a matrix, or of a stack of them; None: another kind of parameter."""
    if names[-2] == "moe":  # routed experts, [layers, experts, in, out]
        return (2,)
    if names[-1] != "kernel":
        return None
    first = 0 if names[0] == "head" else 1
    return (first, first + 1) if "o" in names else (first,)


def _matrices(params: dict) -> dict:
    """For each parameter which axes Muon takes as a matrix's input and output; None: not a matrix of a layer."""

    def axes(path, value):
        names = [entry.key for entry in path]
        inputs = _fan_in_axes(names)
        if inputs is None or names[0] == "head" or "router" in names:
            return None
        return optax.contrib.MuonDimensionNumbers(inputs, tuple(range(inputs[-1] + 1, value.ndim)))

    return jax.tree_util.tree_map_with_path(axes, params)


ARCHITECTURES = {"qwen2": "tiny-qwen2", "llama": "tiny-llama", "deepseek_v3": "tiny-deepseek-v3"}


def base_config(architecture: str) -> ModelConfig:
    """Of the base of that architecture."""
    return PUBLISHED[ARCHITECTURES[architecture]].config


def initial_params(config: ModelConfig, key: jax.Array) -> dict:
    """Random parameters, each matrix scaled by its fan-in, those that write to the residual stream by depth too."""
    depth = 2 * config.num_hidden_layers

    def scaled(path, value):
        names = [entry.key for entry in path]
        if names[-1] == "embedding":
            return value * 0.3
        inputs = _fan_in_axes(names)
        if inputs is None:
            return value
        fan_in = math.prod(value.shape[axis] for axis in inputs)
        return value * (fan_in * (depth if "o" in names or "down" in names[-2:] else 1)) ** -0.5

    return jax.tree_util.tree_map_with_path(scaled, init_params(dataclasses.replace(config, initializer_range=1.0), key))


def row_tokens(config: ModelConfig) -> int:
    """Length of a packed row: the longest document just fits."""
    return DOCUMENT_TOKENS + (config.bos_token_id is not None)


def batches(config: ModelConfig, tokenizer, writers: corpus.Writers, seed: str) -> Iterator[Batch]:
    """Endless packed batches of the corpus, ``[ROWS, row_tokens]``; the loss is about completions and their ends."""
    random, end = Random(seed), config.eos_token_ids[0]
    while True:
        items = []
        for index in range(POOL):
            prompt, completion = corpus.document(random, writers)
            prompt = tokenizer.encode(prompt).ids  # after a BOS, where there is one
            tokens = [*prompt, *tokenizer.encode(completion, add_special_tokens=False).ids, end]
            items.append(PackItem(index, np.array(tokens, np.int32), len(prompt)))
        whole = pack(items, row_tokens(config))
        order = random.sample(range(len(whole.tokens)), len(whole.tokens) // ROWS * ROWS)
        for batch in micro_batches(Batch(*(None if x is None else x[order] for x in whole)), ROWS):
            every = (batch.segment_ids > 0).astype(np.float32)
            yield batch._replace(
                token_weight=token_weights(batch.completion_mask, batch.sequence_index, rule="token_mean"),
                balance_weight=token_weights(every, batch.sequence_index, rule="sequence_mean"),
            )


def objective(config: ModelConfig, params: dict, batch: Batch) -> tuple[jax.Array, tuple[dict, dict]]:
    """``(loss, (figures, counts for the state parameters))``: cross-entropy, and what the architecture adds to it."""
    logprobs, _, aux = token_logprobs(config, params, batch, remat="none")
    loss, metrics = sft_loss(logprobs, batch.token_weight)
    figures = {"loss": metrics["cross_entropy"]}
    loss += router_loss(balance=BALANCE_COEFFICIENT)(aux, batch)[0]
    if config.num_nextn_predict_layers:
        guesses, told = mtp_logprobs(config, params, batch, aux["hidden"], remat="none")
        value, metrics = mtp_loss(guesses, batch.token_weight, batch.positions, coefficient=MTP_COEFFICIENT)
        loss, aux, figures["mtp"] = loss + value, aux | told, metrics["mtp_cross_entropy"]
    counts = statistics(config, aux, batch.segment_ids > 0)
    for load in jax.tree.leaves(counts):
        busiest = jnp.max(load / jnp.mean(load, axis=-1, keepdims=True))
        figures["busiest expert"] = jnp.maximum(figures.get("busiest expert", 0), busiest)
    return loss, (figures, counts)


def with_state(params: dict, old: dict, counts: dict) -> dict:
    """The parameters, the biases of the routers updated by their load, which no optimizer does."""
    if not isinstance(counts, dict):
        return router_bias_update(old, counts, rate=BIAS_RATE)
    return params | {name: with_state(params[name], old[name], value) for name, value in counts.items()}


def pretrain(
    config: ModelConfig, tokenizer, schedule: Schedule, phases: tuple[corpus.Writers, corpus.Writers], seed: int
) -> Iterator[dict]:
    """Trains from random parameters and yields the parameters at the end of each phase."""
    params = initial_params(config, jax.random.key(seed))
    optimizer = schedule.optimizer()
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch):
        gradient, (figures, counts) = jax.grad(functools.partial(objective, config), has_aux=True)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        return with_state(optax.apply_updates(params, updates), params, counts), state, figures

    start = time.monotonic()
    streams = [batches(config, tokenizer, writers, f"{seed} {phase}") for phase, writers in enumerate(phases)]
    for number in range(1, schedule.steps + 1):
        params, state, figures = step(params, state, next(streams[number > schedule.textbook_steps]))
        if number % LOG_EVERY == 0 or number == schedule.steps:
            told = "  ".join(f"{name} {float(value):.3f}" for name, value in figures.items())
            print(f"step {number:5d}  {told}  {time.monotonic() - start:.0f} s", flush=True)
            if not math.isfinite(float(figures["loss"])):
                raise FloatingPointError(f"the loss is {float(figures['loss'])} at step {number}")
        if number in (schedule.textbook_steps, schedule.steps):
            yield params


def accepted_guesses(config: ModelConfig, params: dict, tokenizer, writers: corpus.Writers) -> float:
    """The share of tokens of fresh documents that multi-token prediction guesses as the model itself would choose them."""
    count = jax.jit(functools.partial(mtp_acceptance, config))
    stream = batches(config, tokenizer, writers, "acceptance")
    agreed, said = sum(np.asarray(count(params, next(stream)))[0] for _ in range(100))
    return float(agreed / said)


def dev_accuracy(model: Path) -> float:
    """pass@1 on the world's dev problems of search, four samples each at temperature 1, by r1jax's own sampler and grader."""
    rows = make_rows("search", "dev", 0)
    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    with tempfile.TemporaryDirectory() as folder, Console() as console, examine(str(model), layout, console) as ask:
        path = Path(folder) / "search-dev.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        figures, _ = ask(
            "dev", BenchmarkSource(str(path), samples=4, temperature=1.0, top_p=1.0, max_tokens=DOCUMENT_TOKENS - 10)
        )
    return figures["pass@1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="qwen2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-check", action="store_true", help="the control: a corpus without checking")
    parser.add_argument("--textbook-steps", type=int, default=Schedule.textbook_steps)
    parser.add_argument("--mixture-steps", type=int, default=Schedule.mixture_steps)
    arguments = parser.parse_args()
    phases = (corpus.NO_CHECK_TEXTBOOK, corpus.NO_CHECK_MIXTURE) if arguments.no_check else (corpus.TEXTBOOK, corpus.MIXTURE)
    schedule = Schedule(textbook_steps=arguments.textbook_steps, mixture_steps=arguments.mixture_steps)
    accuracies = []
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = vocabulary.write_tokenizer(Path(folder), vocabulary.MANNERS[arguments.architecture])
        config = base_config(arguments.architecture)
        print(f"{count_params(config):,} parameters; {json.dumps(dataclasses.asdict(schedule))}", flush=True)
        finished = pretrain(config, tokenizer, schedule, phases, arguments.seed)
        for phase, out, writers in zip(("textbook", "mixture"), (Path(folder) / "textbook", arguments.out), phases):
            params = next(finished)
            export_model(out, config, params, folder)
            accuracies.append(dev_accuracy(out))
            print(f"accuracy on dev after the {phase}: {accuracies[-1]:.3f}", flush=True)
            if config.num_nextn_predict_layers:
                share = accepted_guesses(config, params, tokenizer, writers)
                print(f"guesses of multi-token prediction accepted after the {phase}: {share:.3f}", flush=True)
    if not arguments.no_check:
        met = accuracies[0] >= TEXTBOOK_AT_LEAST and MIXTURE_BETWEEN[0] <= accuracies[1] <= MIXTURE_BETWEEN[1]
        print(f"the criterion for a base to ship is {'' if met else 'not '}met")


if __name__ == "__main__":
    main()
