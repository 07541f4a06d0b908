"""The tiny base's maker: its batches, its phases, and the shipped base."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import make_base  # noqa: E402
from world import corpus, search, vocabulary  # noqa: E402

from r1jax.checkpoint import read_config  # noqa: E402
from r1jax.models import count_params  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.build_tokenizer()


def test_longest_document_fits_a_row(tokenizer):
    problem = search.SearchProblem((12, 11, 10, 9), 144)  # out of reach: every candidate is tried

    class First:  # a random source that starts at the first candidate and never mixes
        randrange, random = staticmethod(lambda n: 0), staticmethod(lambda: 0.99)

    text = corpus.search_document(First, problem, "zh", corpus.TEXTBOOK)
    assert text.count("等等") == 17
    document = tokenizer.encode(corpus.prompt_text(problem.text("zh")) + text).ids
    assert make_base.ROW_TOKENS // 2 < len(document) + 1 <= make_base.ROW_TOKENS


def test_batches_learn_completions_only(tokenizer):
    stream = make_base.batches(tokenizer, corpus.MIXTURE, "a")
    end = tokenizer.token_to_id(vocabulary.EOS)
    for _ in range(20):
        batch = next(stream)
        assert batch.tokens.shape == (make_base.ROWS, make_base.ROW_TOKENS)
        assert batch.token_weight.sum() == pytest.approx(1, abs=1e-5)
        assert (batch.segment_ids != 0).mean() > 0.75  # rows are well filled
        for row in range(make_base.ROWS):
            for segment in range(1, batch.segment_ids[row].max() + 1):
                here = batch.segment_ids[row] == segment
                learnt = batch.completion_mask[row, here] != 0
                tokens = batch.tokens[row, here]
                assert not learnt[0] and learnt[-1] and tokens[-1] == end
                prompt = tokenizer.decode(tokens[~learnt].tolist())
                assert prompt.endswith("\n") and "<think>" not in prompt
    again = next(make_base.batches(tokenizer, corpus.MIXTURE, "a"))
    other = next(make_base.batches(tokenizer, corpus.MIXTURE, "b"))
    first = next(make_base.batches(tokenizer, corpus.MIXTURE, "a"))
    assert np.array_equal(again.tokens, first.tokens) and not np.array_equal(again.tokens, other.tokens)


def test_shipped_bases_are_what_the_maker_makes(tokenizer):
    folders = sorted(path for path in (ROOT / "configs/tiny").glob("base*") if path.is_dir())
    assert folders
    for folder in folders:
        config = read_config(folder)
        assert config == make_base.qwen2_config(tokenizer.get_vocab_size())
        tensors = load_file(folder / "model.safetensors")
        assert sum(tensor.size for tensor in tensors.values()) == count_params(config) < 500_000
        assert all(np.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.slow
def test_training_is_seeded_and_yields_both_phases(tokenizer):
    config, schedule = make_base.qwen2_config(tokenizer.get_vocab_size()), make_base.Schedule(4, 2, 1)

    def phases(seed):
        # copied: the next phase's steps reuse the buffers
        return [
            jax.tree.map(np.array, params)
            for params in make_base.pretrain(config, tokenizer, schedule, (corpus.TEXTBOOK, corpus.MIXTURE), seed)
        ]

    first, again, other = phases(1), phases(1), phases(2)
    assert len(first) == 2
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again)):
        np.testing.assert_array_equal(a, b)
    heads = [params["head"]["kernel"] for params in (*first, other[1])]
    assert not np.array_equal(heads[0], heads[1]) and not np.array_equal(heads[1], heads[2])
