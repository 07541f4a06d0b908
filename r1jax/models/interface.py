"""What the sampler, the scorers and the steps may know of a model.

Every architecture is a *family*: a module with

``schema(config) -> parameters.Schema``
    each parameter's shape, logical axes and initialiser, declared once;
``forward(config, params, tokens, positions, segment_ids=None, cache=None, routes=None)``
    ``-> (hidden [B, T, D], cache, aux)``;
``init_block(config, rows, length, dtype) -> block``
    one block of cache, all leaves ``[L, rows, ..., length, width]``;
``block_axes(config) -> tree``
    their logical axes;
``route_shape(config)``, ``statistics(config, aux, counted)``
    see the functions of these names in ``models``;
``mtp_hidden(config, params, hidden, tokens, positions, segment_ids)``
    likewise, where ``config.num_nextn_predict_layers`` can be above 0.

Hidden states, not logits, come out: the head (``head_weight``) is one op (``ops.head``) that sampler, reference
and trainer share. Callers name no architecture: ``models.forward`` and its neighbours dispatch on the configuration.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any
Block = Any  # a pytree that only the family understands; in stacks or layer by layer, see models/cache.py


class Cache(NamedTuple):
    """The key-value cache of decoding slots: a block per prompt, shared by its lanes, and a block per lane.

    With P prompts of N lanes each, row ``b`` of the decoded batch is lane ``b % N`` of prompt ``b // N``.

    * Prefill: ``own is None``. ``tokens [P, T]`` (right-padded; ``segment_ids`` 1 on tokens, 0 on padding) are
      run causally and their entries written into the prompt block from 0; T is at most the block's length.
    * Decoding: ``tokens [P*N, 1]``. Each attends the first ``prompt_length`` entries of its prompt's block, the
      first ``own_length`` of its own and itself; its entry is written at ``own_length`` of its own block.
      The caller advances ``own_length``. Both blocks are in stacks, or both layer by layer (``models.cache``).

    Attributes:
      prompt: leaves ``[L, P, ..., S, width]``; layer by layer ``[P, ..., S, width]``.
      prompt_length: int32 ``[P]``, valid entries.
      own: likewise ``P*N`` rows of length S', or None.
      own_length: int32 ``[P*N]``, entries written so far, or None.
    """

    prompt: Block
    prompt_length: Array
    own: Block | None = None
    own_length: Array | None = None


class Model(NamedTuple):
    """A loaded model: what ``checkpoint.load_model`` gives.

    Attributes:
      config: ``models.ModelConfig``.
      params: nested dict of arrays, on the mesh.
      tokenizer: ``data.Tokenizer``, or None where the checkpoint has none.
    """

    config: Any
    params: Any
    tokenizer: Any
