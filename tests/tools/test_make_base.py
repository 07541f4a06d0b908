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
from r1jax.models import abstract_params, count_params  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.build_tokenizer()


@pytest.mark.parametrize("architecture", make_base.ARCHITECTURES)
def test_ids_of_configuration_and_tokenizer_agree(architecture):
    manner, config = vocabulary.MANNERS[architecture], make_base.base_config(architecture)
    tokenizer = vocabulary.build_tokenizer(manner)
    assert config.vocab_size == tokenizer.get_vocab_size()
    assert config.eos_token_ids == tuple(map(tokenizer.token_to_id, (manner.eos, manner.turn_end)))
    assert config.pad_token_id == tokenizer.token_to_id(manner.pad)
    assert config.bos_token_id == (tokenizer.token_to_id(manner.bos) if manner.bos else None)


def test_the_two_tokenizers_cut_texts_alike_and_number_them_otherwise(tokenizer):
    other, text = vocabulary.build_tokenizer(vocabulary.LLAMA3), "From 7, 9, 6 make 13.\n用3、7、8得到21。 Größe"
    begin, *ids = other.encode(text).ids
    assert (
        begin == other.token_to_id("<|begin_of_text|>")
        and other.decode(ids) == tokenizer.decode(tokenizer.encode(text).ids) == text
    )
    theirs = tokenizer.encode(text).ids
    assert len(ids) == len(theirs) and not any(a == b for a, b in zip(ids, theirs))


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_longest_document_fits_a_row(architecture):
    tokenizer = vocabulary.build_tokenizer(vocabulary.MANNERS[architecture])
    problem = search.SearchProblem((12, 11, 10, 9), 144)  # out of reach: every candidate is tried

    class First:  # a random source that starts at the first candidate and never mixes
        randrange, random = staticmethod(lambda n: 0), staticmethod(lambda: 0.99)

    text = corpus.search_document(First, problem, "zh", corpus.TEXTBOOK)
    assert text.count("等等") == 17
    document = tokenizer.encode(corpus.prompt_text(problem.text("zh")) + text).ids
    room = make_base.row_tokens(make_base.base_config(architecture))
    assert room // 2 < len(document) + 1 <= room


def test_batches_learn_completions_only(tokenizer):
    config, end = make_base.base_config("qwen2"), tokenizer.token_to_id(vocabulary.QWEN2.eos)
    stream = make_base.batches(config, tokenizer, corpus.MIXTURE, "a")
    for _ in range(20):
        batch = next(stream)
        assert batch.tokens.shape == (make_base.ROWS, make_base.row_tokens(config))
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
    again = next(make_base.batches(config, tokenizer, corpus.MIXTURE, "a"))
    other = next(make_base.batches(config, tokenizer, corpus.MIXTURE, "b"))
    first = next(make_base.batches(config, tokenizer, corpus.MIXTURE, "a"))
    assert np.array_equal(again.tokens, first.tokens) and not np.array_equal(again.tokens, other.tokens)


def test_shipped_bases_are_what_the_maker_makes():
    folders = sorted(file.parent for file in (ROOT / "configs/tiny").glob("*/model.safetensors"))
    assert folders
    for folder in folders:
        config = read_config(folder)
        assert config == make_base.base_config(config.architecture)
        tensors = load_file(folder / "model.safetensors")
        # The module of multi-token prediction has copies of the embedding and the head beside it.
        copies = config.num_nextn_predict_layers * 2 * config.vocab_size * config.hidden_size
        assert sum(tensor.size for tensor in tensors.values()) == count_params(config) + copies < 1_000_000
        assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def test_every_matrix_of_a_layer_is_muon_s(tokenizer):
    for architecture in make_base.ARCHITECTURES:
        params = abstract_params(make_base.base_config(architecture))
        axes = jax.tree.leaves(make_base._matrices(params), is_leaf=lambda x: x is None or isinstance(x, tuple))
        for (path, value), chosen in zip(jax.tree_util.tree_leaves_with_path(params), axes):
            names = [entry.key for entry in path]
            vector = names[-1] in ("scale", "bias")
            assert (chosen is None) == (vector or bool({"router", "head", "embed"} & set(names)))
            if chosen is not None:  # what is neither input nor output is a stack of layers, or of layers and experts
                stacked = value.ndim - len(chosen.reduction_axis) - len(chosen.output_axis)
                assert stacked == (2 if names[-2] == "moe" else 1)


@pytest.mark.slow
def test_routers_move_by_their_load_alone(tokenizer):
    config = make_base.base_config("deepseek_v3")
    schedule = make_base.Schedule(1, 1, 1)
    *_, params = make_base.pretrain(config, tokenizer, schedule, (corpus.TEXTBOOK, corpus.MIXTURE), 0)
    for at in (params["expert_layers"], params["mtp"]["block"]):
        moves = np.asarray(at["moe"]["router"]["bias"]) / make_base.BIAS_RATE
        np.testing.assert_allclose(moves, np.round(moves), atol=1e-4)
        assert moves.min() == -2 and moves.max() == 2


@pytest.mark.slow
def test_training_is_seeded_and_yields_both_phases(tokenizer):
    config, schedule = make_base.base_config("qwen2"), make_base.Schedule(4, 2, 1)

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
