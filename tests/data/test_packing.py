"""Packing loses nothing, mixes nothing, and wastes little."""

import numpy as np
import pytest

from r1jax.data.packing import PackItem, micro_batches, pack, pack_together, spread, unpack


def items(lengths, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for index, length in enumerate(lengths):
        start = int(rng.integers(1, length)) if length > 1 else 1
        values = {"sampler_logprobs": rng.normal(size=length - start).astype(np.float32), "advantages": float(rng.normal())}
        out.append(PackItem(index, rng.integers(1, 99, length), start, values=values))
    return out


@pytest.mark.parametrize("row_length, multiple", [(12, 1), (13, 4), (100, 3)])
def test_every_sequence_comes_back(row_length, multiple):
    sequences = items(np.random.default_rng(1).integers(1, 13, 40))
    batch = pack(sequences, row_length, multiple)
    rows = len(batch.tokens)
    assert batch.tokens.shape == (rows, row_length) and rows % multiple == 0
    for item in sequences:
        b, t = np.nonzero(batch.sequence_index == item.index)
        assert (b == b[0]).all() and (np.diff(t) == 1).all()  # in one row, in one piece
        assert (batch.tokens[b, t] == item.tokens).all()
        assert (batch.positions[b, t] == np.arange(len(item.tokens))).all()
        assert len(set(batch.segment_ids[b, t])) == 1 and batch.segment_ids[b[0], t[0]] > 0
        assert (batch.completion_mask[b, t] == (np.arange(len(item.tokens)) >= item.completion_start)).all()
        assert (batch.advantages[b, t][item.completion_start :] == np.float32(item.values["advantages"])).all()
        assert (batch.advantages[b, t][: item.completion_start] == 0).all()
    for name in ("sampler_logprobs", "tokens"):
        back = unpack(batch, getattr(batch, name))
        assert back.keys() == set(range(40))
        for item in sequences:
            expected = item.values[name] if name != "tokens" else item.tokens[item.completion_start :]
            assert (back[item.index] == expected).all()
    padding = batch.sequence_index < 0
    for name in ("tokens", "positions", "segment_ids", "completion_mask", "advantages", "token_weight"):
        assert (getattr(batch, name)[padding] == 0).all()
    assert ((batch.segment_ids == 0) == padding).all()
    for row in batch.segment_ids:  # numbered 1, 2, ... from the left
        assert list(dict.fromkeys(row[row > 0])) == list(range(1, row.max(initial=0) + 1))


def test_longest_first_into_the_fullest_row_that_holds_it():
    batch = pack(items([2, 7, 3, 6, 4, 1]), 10)
    rows = [list(dict.fromkeys(int(i) for i in row if i >= 0)) for row in batch.sequence_index]
    # 7 and 6 open rows; 4 goes beside 6 and 3 beside 7, both full; 2 and 1 share the third
    assert rows == [[1, 2], [3, 4], [0, 5]]
    tight = pack(items([5, 6, 4, 1]), 10)
    rows = [list(dict.fromkeys(int(i) for i in row if i >= 0)) for row in tight.sequence_index]
    assert rows == [[1, 2], [0, 3]]
    # A row with less room, though opened later, is taken before one with more.
    assert (pack(items([5, 8, 2]), 10).sequence_index[0] == 1)[:8].all()


def test_the_order_of_the_items_changes_nothing():
    sequences = items([4, 4, 4, 2, 9, 4])
    one, other = pack(sequences, 10, 2), pack(sequences[::-1], 10, 2)
    assert all((a == b).all() for a, b in zip(one, other) if a is not None)


def test_little_is_wasted():
    lengths = np.random.default_rng(0).integers(20, 400, 500)
    rows = len(pack(items(lengths), 1000).tokens)
    assert rows <= 1.02 * lengths.sum() / 1000 + 1


def test_an_update_with_nothing_in_it_is_padding():
    batch = pack([], 8, 4)
    assert batch.tokens.shape == (4, 8) and (batch.segment_ids == 0).all() and unpack(batch, batch.advantages) == {}


def test_an_empty_completion_and_a_masked_turn():
    mask = np.array([1, 0, 0, 1])
    batch = pack(
        [
            PackItem(3, np.arange(1, 4), 3),
            PackItem(5, np.arange(1, 7), 2, completion_mask=mask, values={"advantages": 2.0}),
        ],
        8,
    )
    assert (batch.completion_mask[batch.sequence_index == 3] == 0).all()
    assert batch.advantages[batch.sequence_index == 5].tolist() == [0, 0, 2, 0, 0, 2]
    back = unpack(batch, batch.tokens)
    assert back[3].shape == (0,) and back[5].tolist() == [3, 6]


def test_spread_reads_by_sequence():
    batch = pack(items([4, 6, 3]), 7)
    values = np.array([10.0, 20.0, 30.0, 40.0])
    found = spread(batch, values)
    assert found.dtype == np.float32
    for b, t in np.ndindex(*found.shape):
        assert found[b, t] == (values[batch.sequence_index[b, t]] if batch.completion_mask[b, t] else 0)


def test_routes_travel_with_their_tokens():
    routes = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    batch = pack([PackItem(0, np.arange(5), 2, routes=routes)], 7)
    assert batch.routes.dtype == np.uint8 and batch.routes.shape == (1, 7, 2, 3)
    assert (batch.routes[0, :5] == routes).all() and (batch.routes[0, 5:] == 0).all()


def test_micro_batches_are_the_rows_in_order():
    batch = pack(items([9, 8, 7, 6]), 10, 2)
    parts = list(micro_batches(batch, 2))
    assert len(parts) == 2 and all(part.routes is None for part in parts)
    assert (np.concatenate([part.tokens for part in parts]) == batch.tokens).all()
    with pytest.raises(ValueError, match="4 rows do not divide into micro-batches of 3"):
        list(micro_batches(batch, 3))


@pytest.mark.parametrize(
    "item, words",
    [
        (PackItem(7, np.ones(11), 2), "sequence 7 has 11 tokens, a row 10; raise row_tokens"),
        (PackItem(7, np.ones(4), 0), "sequence 7 of 4 tokens can't have a prompt of 0"),
        (PackItem(7, np.ones(4), 5), "can't have a prompt of 5"),
        (PackItem(-1, np.ones(4), 1), "sequence index -1 is negative or comes twice"),
        (PackItem(0, np.ones(4), 1), "sequence index 0 is negative or comes twice"),
        (PackItem(7, np.ones(4), 1, values={"reward": 1.0}), "'reward' is no value of a batch"),
        (PackItem(7, np.ones(4), 1, values={"advantages": np.ones(4)}), r"advantages has shape \(4,\), not \(3,\)"),
        (PackItem(7, np.ones(4), 1, completion_mask=np.ones(4)), r"completion_mask has shape \(4,\), not \(3,\)"),
    ],
)
def test_bad_input_is_named(item, words):
    with pytest.raises(ValueError, match=words):
        pack([PackItem(0, np.ones(2), 1), item], 10)


def test_groups_stay_in_one_row():
    rng = np.random.default_rng(2)
    alone = items(rng.integers(2, 9, 40))
    groups = [alone[i : i + 2] for i in range(0, 40, 2)]
    batch = pack_together(groups, 20, 3)
    assert len(batch.tokens) % 3 == 0
    for group in groups:
        places = [np.nonzero(batch.sequence_index == item.index) for item in group]
        assert places[0][0][0] == places[1][0][0] and places[0][1][-1] + 1 == places[1][1][0]
        segments = [batch.segment_ids[place][0] for place in places]
        assert segments[0] != segments[1] and (batch.positions[places[1]] == np.arange(len(group[1].tokens))).all()
    taken = np.count_nonzero(batch.segment_ids) / batch.tokens.size
    assert taken > 0.6
    one = pack(alone, 20, 3)
    assert sorted(one.tokens[one.segment_ids > 0]) == sorted(batch.tokens[batch.segment_ids > 0])
    with pytest.raises(ValueError, match=r"sequences 0, 1 belong together and have \d+ tokens, a row 9; raise row_tokens"):
        pack_together([items([8, 8])], 9)
