"""The empty batch is padding and nothing else."""

import numpy as np

from r1jax.data.batch import INTEGER_FIELDS, OPTIONAL_FIELDS, Batch, empty_batch


def test_empty_batch():
    batch = empty_batch(2, 5)
    assert isinstance(batch, Batch) and all(getattr(batch, f) is None for f in OPTIONAL_FIELDS)
    assert all(getattr(batch, f).shape == (2, 5) for f in Batch._fields if f not in OPTIONAL_FIELDS)
    assert all(getattr(batch, f).dtype == np.int32 for f in INTEGER_FIELDS)
    assert (batch.segment_ids == 0).all() and (batch.completion_mask == 0).all() and (batch.sequence_index == -1).all()
