"""How a session stands or ended: timing/status.json, for whoever looks at the work directory."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator

from etils import epath

from r1jax.pipeline import records
from r1jax.pipeline.stage import StopRequested

STATUS = "timing/status.json"


@contextlib.contextmanager
def kept(workdir: epath.Path) -> Iterator[None]:
    """Says ``running`` while inside, and how it ended afterwards: ``complete``, ``stopped`` or ``failed`` with the reason.

    A process that is killed leaves ``running``, which its lock no longer bears out.
    """
    said = {"process": os.getpid(), "host": platform.node(), "began": time.time()}

    def say(state: str, reason: str = "") -> None:
        ended = {} if state == "running" else {"ended": time.time()}
        with contextlib.suppress(OSError):  # a full disk ends the run with its own error
            records.write_atomic(workdir / STATUS, json.dumps(said | ended | {"state": state, "reason": reason}))

    say("running")
    try:
        yield
    except StopRequested as stopped:
        say("stopped", str(stopped))
        raise
    except BaseException as error:
        say("failed", f"{type(error).__name__}: {error}"[:2_000])
        raise
    say("complete")
