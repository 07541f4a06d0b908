"""Sample completions of prompts.

Text goes to the model as it is (after one beginning-of-sequence token, if the model wants one); --chat puts it
through the model's chat template. Temperature 0 is greedy; log-probabilities are then those at temperature 1.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from r1jax.commands.output import only_json
from r1jax.commands.sampling import add_sampling_arguments, check_sampling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a Hugging Face directory or an r1jax checkpoint")
    prompts = parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompt", metavar="TEXT", help="one prompt")
    prompts.add_argument("--prompts", metavar="FILE.jsonl", help='a prompt per line: {"prompt": "..."} or "..."')
    add_sampling_arguments(parser, samples=1, temperature=1.0, top_p=1.0, max_tokens=None)
    parser.add_argument("--chat", action="store_true", help="put each prompt through the model's chat template")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def read_prompts(arguments: argparse.Namespace) -> list[str]:
    """The prompts' texts.

    Raises:
      ValueError: a file that can't be read, or a line that holds no prompt; the message names the line.
    """
    if arguments.prompt is not None:
        return [arguments.prompt]
    try:
        with open(arguments.prompts, encoding="utf-8") as file:
            lines = [(number, line) for number, line in enumerate(file, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts {arguments.prompts} can't be read: {error}") from error
    prompts = []
    for number, line in lines:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{arguments.prompts}:{number} is not JSON: {error}") from error
        except RecursionError:
            raise ValueError(f"{arguments.prompts}:{number} is not JSON of a prompt: it is nested too deeply") from None
        text = value.get("prompt") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise ValueError(f'{arguments.prompts}:{number} must be {{"prompt": "..."}} or a string')
        prompts.append(text)
    if not prompts:
        raise ValueError(f"--prompts {arguments.prompts} holds no prompt")
    return prompts


def generate(arguments: argparse.Namespace, prompts: list[str]) -> list[dict[str, Any]]:
    """One object per sample, by prompt, then by sample."""
    import numpy as np

    from r1jax import sharding
    from r1jax.checkpoint import load_model
    from r1jax.config import SamplerSettings
    from r1jax.data import render_prompt
    from r1jax.models.precision import compute_dtype
    from r1jax.reporting import Console
    from r1jax.rollout import Sampler, Wave
    from r1jax.rollout.sampler import DEFAULT_LANES, DEFAULT_SLOTS

    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    dtype = compute_dtype(layout.platform)
    model = load_model(arguments.model, mesh=layout.mesh, dtype=dtype, rules=sharding.ROLLOUT_RULES, prediction=False)
    if model.tokenizer is None:
        raise ValueError(f"{arguments.model} has no tokenizer; put its tokenizer.json or tokenizer.model there")
    template = "chat" if arguments.chat else "none"
    token_ids = [render_prompt(template, prompt, model.tokenizer)[1] for prompt in prompts]
    if [] in token_ids:
        raise ValueError("an empty prompt needs a tokenizer that begins every text with a token; this one does not")
    left = model.config.max_position_embeddings - max(map(len, token_ids))
    wave = Wave(
        prompts=tuple(np.array(ids, np.int32) for ids in token_ids),
        prompt_ids=tuple(range(len(prompts))),
        samples=arguments.samples,
        seed=arguments.seed,
        rollout=0,
        max_tokens=arguments.max_tokens or max(1, min(256, left)),
        stop_ids=frozenset(model.config.eos_token_ids) | frozenset(model.tokenizer.eos_ids),
        temperature=arguments.temperature,
        top_p=arguments.top_p,
    )
    total = len(prompts) * arguments.samples
    # An idle row costs what a busy one does: no more rows than prompts.
    rows = min(len(prompts), DEFAULT_SLOTS // min(DEFAULT_LANES, arguments.samples))
    sampler = Sampler(model.config, layout, SamplerSettings(rows=rows), dtype)
    with Console() as console:

        def draw(finished: int, tokens: int) -> None:
            console.progress("generate", finished, total, {"tokens": tokens})

        watched = draw if console.terminal else None
        if watched:
            watched(0, 0)  # compiling comes first, and takes a while
        sequences = sampler.run(model.params, wave, on_progress=watched)
    return [
        {
            "prompt": prompts[sequence.prompt_id],
            "completion": model.tokenizer.decode(sequence.content.tolist()),
            "prompt_token_ids": sequence.prompt_tokens,
            "token_ids": sequence.tokens,
            "logprobs": sequence.logprobs,
            "finish_reason": sequence.finish_reason,
        }
        for sequence in sequences
    ]


def run(arguments: argparse.Namespace) -> int:
    check_sampling(arguments)
    prompts = read_prompts(arguments)
    with only_json(arguments.json) as emit:
        samples = generate(arguments, prompts)
        if arguments.json:
            emit({"samples": samples})
    if not arguments.json:
        for number, sample in enumerate(samples):
            if len(samples) > 1:
                print(f"--- prompt {number // arguments.samples + 1}, sample {number % arguments.samples + 1}")
            print(sample["completion"])
    return 0
