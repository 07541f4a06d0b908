"""New directories appear whole or not at all: written under another name beside their place, then renamed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from etils import epath

from r1jax.checkpoint.integrity import CheckpointError

GENERATION = "generation_config.json"
# What goes along with the weights from directory to directory: the tokenizer, how the publisher would sample, which is not
# read here save for special ids, but by those who serve an export, and how a reward model is asked (``scoring.reward_model``).
CARRIED_FILES = (
    GENERATION,
    "reward_model.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def copy_carried(source: epath.PathLike, target: epath.Path) -> None:
    """Copies ``CARRIED_FILES``; there may be none."""
    for name in CARRIED_FILES:
        if (epath.Path(source) / name).exists():
            (target / name).write_bytes((epath.Path(source) / name).read_bytes())


def check_replaceable(path: epath.Path, is_ours: Callable[[epath.Path], bool]) -> None:
    """Refuses a place where something stands that r1jax did not write.

    Raises:
      CheckpointError: ``path`` is a file, or a directory with content that ``is_ours`` does not recognise.
    """
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file; choose another directory")
    if path.exists() and any(path.iterdir()) and not is_ours(path):
        raise CheckpointError(
            f"{path} is not empty and holds more than an earlier output; choose another directory or remove it"
        )


@contextlib.contextmanager
def replacing(path: epath.Path, resume: Callable[[epath.Path], bool] | None = None) -> Iterator[epath.Path]:
    """Yields a directory beside ``path`` to fill; at the end it takes the place of ``path`` and of what stood there.

    What an earlier, killed attempt left is removed first, or kept where ``resume`` says that it can be continued.
    On an exception nothing is left behind, save that an interrupt (not an error) keeps what can be continued.
    """
    partial, old = path.parent / f".{path.name}.partial", path.parent / f".{path.name}.old"
    if partial.exists() and not (resume and resume(partial)):
        partial.rmtree()
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
    except BaseException as error:
        if resume is None or isinstance(error, Exception):
            partial.rmtree()
        raise
    if old.exists():
        old.rmtree()
    if path.exists():
        path.rename(old)
    partial.rename(path)
    if old.exists():
        old.rmtree()
