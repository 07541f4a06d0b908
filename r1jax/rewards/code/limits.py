"""What one run of a program may use."""

from __future__ import annotations

import dataclasses
import math

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of one run: a program on one input, or on all the assertions of its row.

    Attributes:
      cpu_seconds: CPU time, of each process and of all together.
      wall_seconds: time by the clock; longer than ``cpu_seconds``, since a busy machine is not the program's fault.
      compile_seconds: CPU time of the compiler, all its processes together; three times as long by the clock.
      total_seconds: time by the clock of all runs of one ``run_code`` call. What is not decided by then is ungraded.
      memory: bytes of address space of each process, and of resident memory of all together.
      processes: processes and threads at once.
      file_bytes: the largest file.
      scratch_bytes, scratch_files: what the scratch folder holds; it is gone after the run.
      open_files: descriptors of each process.
      output_bytes: standard output and standard error, each.
      source_bytes: the program's text.
    """

    cpu_seconds: float = 10.0
    wall_seconds: float = 20.0
    compile_seconds: float = 10.0
    total_seconds: float = 60.0
    memory: int = 1024 * MIB
    processes: int = 16
    file_bytes: int = 16 * MIB
    scratch_bytes: int = 32 * MIB
    scratch_files: int = 1024
    open_files: int = 64
    output_bytes: int = 4 * MIB
    source_bytes: int = 1 * MIB

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise ValueError(f"the limit {field.name} must be a positive number, not {value!r}")

    def for_compiler(self) -> Limits:
        """The limits of a compiler's run, which is trusted to behave but not to end."""
        return dataclasses.replace(
            self,
            cpu_seconds=self.compile_seconds,
            wall_seconds=3 * self.compile_seconds,
            memory=max(self.memory, 1024 * MIB),
            file_bytes=64 * MIB,
            scratch_bytes=128 * MIB,
            processes=max(self.processes, 16),
        )

    def order(self) -> dict[str, int]:
        """The limits as the keeper takes them: names of the ``resource`` module, and its own."""
        return {
            "RLIMIT_CPU": math.ceil(self.cpu_seconds),
            "RLIMIT_AS": int(self.memory),
            "RLIMIT_FSIZE": int(self.file_bytes),
            "RLIMIT_NOFILE": int(self.open_files),
            "RLIMIT_NPROC": int(self.processes) + 8,  # the keeper and its like may count as the same user's
            "RLIMIT_STACK": int(min(self.memory, 256 * MIB)),
            "RLIMIT_CORE": 1,  # 0 would still start a core handler that is a program
            "RLIMIT_MEMLOCK": 64 << 10,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_SIGPENDING": 256,
            "scratch_bytes": int(self.scratch_bytes),
            "scratch_files": int(self.scratch_files),
            "total_memory": int(self.memory),
            "total_processes": int(self.processes) + 1,
        }
