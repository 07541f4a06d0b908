"""How fast the sampler decodes: tokens per second, milliseconds per step, compilations.

  python tools/benchmarks/decode.py                       # the quickstart's model and wave, on the CPU
  python tools/benchmarks/decode.py --hidden 1024 --layers 24 --prompts 64 --max-tokens 512

Random weights. With --stop, that share of the vocabulary ends a sequence, so that lengths differ as in a real rollout; with
0 every sequence has --max-tokens. Times are of whole waves, the host's work included; the best of --repeats counts.
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np
from jax import monitoring

from r1jax import models, sharding
from r1jax.config import SamplerSettings
from r1jax.rollout import Sampler, Wave


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("hidden", 96),
        ("layers", 3),
        ("heads", 4),
        ("kv-heads", 2),
        ("vocab", 554),
        ("prompts", 32),
        ("samples", 8),
        ("prompt-tokens", 32),
        ("max-tokens", 120),
        ("chunk", 16),
        ("completion-bucket", 128),
        ("repeats", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--stop", type=float, default=0.0, help="share of the vocabulary that ends a sequence, up to 16 ids")
    return parser.parse_args()


def build(args: argparse.Namespace) -> tuple[Sampler, dict, Wave]:
    """The sampler, random parameters and the wave that is timed."""
    config = models.ModelConfig(
        "qwen2",
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 8 // 3,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        head_dim=args.hidden // args.heads,
        qkv_bias=True,
    )
    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    settings = SamplerSettings(
        rows=args.prompts,
        lanes=args.samples,
        chunk=args.chunk,
        prompt_bucket=args.prompt_tokens,
        completion_bucket=args.completion_bucket,
    )
    rng = np.random.default_rng(0)
    wave = Wave(
        prompts=tuple(rng.integers(16, args.vocab, args.prompt_tokens, np.int32) for _ in range(args.prompts)),
        prompt_ids=tuple(range(args.prompts)),
        samples=args.samples,
        seed=0,
        rollout=0,
        max_tokens=args.max_tokens,
        stop_ids=frozenset(range(min(16, round(args.stop * args.vocab)))),
    )
    return Sampler(config, layout, settings), models.init_params(config, jax.random.key(0), layout), wave


def main() -> None:
    args = arguments()
    compilations: list[float] = []

    def listen(name: str, seconds: float, **_) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            compilations.append(seconds)

    monitoring.register_event_duration_secs_listener(listen)
    sampler, params, wave = build(args)
    compilations.clear()
    start = time.perf_counter()
    sampler.warm_up(params, wave)
    print(f"warm-up {time.perf_counter() - start:.1f} s, {len(compilations)} programs ({sum(compilations):.1f} s in XLA)")
    compilations.clear()
    best, cpu = float("inf"), float("inf")
    for _ in range(args.repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        sequences = sampler.run(params, wave)
        best, cpu = min(best, time.perf_counter() - start), min(cpu, time.process_time() - cpu_start)
    tokens = sum(len(s.tokens) for s in sequences)
    steps = max(len(s.tokens) for s in sequences)
    print(
        f"{len(sequences)} sequences, {tokens} tokens, longest {steps}: {best:.3f} s ({cpu:.3f} s of CPU), "
        f"{tokens / best:,.0f} tokens/s, {best / steps * 1e3:.2f} ms a step, {len(compilations)} compilations"
    )


if __name__ == "__main__":
    main()
