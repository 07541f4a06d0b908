"""TensorBoard event files, one folder per stage: ``tensorboard --logdir WORKDIR/tensorboard``."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from r1jax.reporting.exports.follow import Event


class TensorBoard:
    """Writes ``<workdir>/tensorboard/<stage>/events.out.tfevents.*``. Files of an earlier session are replaced by
    one that holds everything.

    For a process of its own: see ``process.py``.
    """

    def __init__(self, workdir: str):
        # tensorboardX imports torch, boto3 and google.cloud wherever they are installed: seconds and 200 MB for nothing.
        for unneeded in ("torch", "boto3", "google.cloud"):
            sys.modules.setdefault(unneeded, None)
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.record_writer import RecordWriter

        self._event, self._summary, self._record_writer = event_pb2, summary_pb2, RecordWriter
        self._folder = f"{workdir}/tensorboard"
        self._writers: dict[str, Any] = {}
        self._began = time.time()

    def write(self, event: Event) -> None:
        values = [self._summary.Summary.Value(tag=k, simple_value=v) for k, v in event.figures.items()]
        summary = self._summary.Summary(value=values)
        self._put(event.stage, self._event.Event(wall_time=event.time, step=event.step, summary=summary))

    def _put(self, stage: str, event: Any) -> None:
        if stage not in self._writers:
            self._writers[stage] = self._open(stage)
        self._writers[stage].write(event.SerializeToString())

    def _open(self, stage: str) -> Any:
        folder = f"{self._folder}/{stage}"
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(folder):
            if name.startswith("events.out.tfevents."):
                os.remove(f"{folder}/{name}")
        writer = self._record_writer(f"{folder}/events.out.tfevents.{int(self._began)}.r1jax")
        writer.write(self._event.Event(wall_time=self._began, file_version="brain.Event:2").SerializeToString())
        # Tells a TensorBoard that watches to forget what the files before this one said.
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        writer.write(self._event.Event(wall_time=self._began, step=0, session_log=start).SerializeToString())
        return writer

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.flush()
            writer.close()
