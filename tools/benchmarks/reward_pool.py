"""How many samples the reward pool grades per second, beside plain multiprocessing and math-verify's.

    python tools/benchmarks/reward_pool.py [--samples 20000] [--workers 2] [--math-verify /path/to/its/python]

Samples are R1-Zero completions of a few hundred characters with a plain number as their answer; graded are accuracy and
format. One table: samples per second by the clock, and processor time per sample in the caller and in the workers, which
tells more than the clock where the machine has other work to do.

- in this process: ``rewards.grade``, no process in between.
- the pool: ``rewards.RewardPool``; it can kill a hanging sample, multiprocessing's can't.
- multiprocessing: ``multiprocessing.Pool.imap`` over the same function, with chunks of 1 (which is how a pool that can
  tell which sample hangs would have to work) and of 64.
- math-verify: ``verify(parse(gold), parse(answer))`` with its defaults in ``multiprocessing.Pool.imap``, chunks of 64.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Callable

from r1jax.rewards import RewardPool, RewardRequest, grade

PARTS = ("accuracy", "format")

MATH_VERIFY = """
import multiprocessing, resource, sys, time
from math_verify import parse, verify

def one(pair):
    return verify(parse(pair[0]), parse(pair[1]))

if __name__ == "__main__":
    samples, workers = map(int, sys.argv[1:])
    thought = "I add and think about it. " * 10
    pairs = [(f"${7 * i}$", f"<think>{thought}</think> The answer is $\\\\boxed{{{7 * i + i % 2}}}$") for i in range(samples)]
    with multiprocessing.Pool(workers) as pool:
        pool.map(one, pairs[:8])
        start = time.perf_counter()
        right = sum(pool.imap(one, pairs, chunksize=64))
        seconds = time.perf_counter() - start
        pool.close()
        pool.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(samples / seconds, right, (used.ru_utime + used.ru_stime) / samples)
"""


def requests(samples: int) -> list[RewardRequest]:
    """Every second answer is wrong by one."""
    thought = "I add and think about it. " * 10
    return [
        RewardRequest(
            {"problem": f"What is 7 times {i}?", "answer": str(7 * i)},
            "A conversation between User and Assistant.",
            f"<think>{thought}</think> <answer>{7 * i + i % 2}</answer>",
            tokens=80,
            extra={"seed": 0, "rollout": 0, "prompt_id": i, "sample": 0},
        )
        for i in range(samples)
    ]


def grade_one(request: RewardRequest) -> bool:
    return bool(grade(request, PARTS).verdict)


def processor_seconds(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def measure(name: str, run: Callable[[list[RewardRequest]], tuple[float, int]], samples: list[RewardRequest]) -> None:
    """Prints one line; ``run`` returns (seconds, how many were right) and leaves no process behind."""
    before = [processor_seconds(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds, right = run(samples)
    after = [processor_seconds(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    if right != (len(samples) + 1) // 2:
        raise SystemExit(f"{name}: {right} of {len(samples)} are right, which is wrong")
    caller, workers = ((b - a) / len(samples) * 1e6 for a, b in zip(before, after))
    line(name, len(samples) / seconds, caller, workers)


def line(name: str, rate: float, caller: float, workers: float) -> None:
    print(f"{name:<44}{rate:>12,.0f}{caller:>12.0f}{workers:>12.0f}", flush=True)


def in_this_process(samples: list[RewardRequest]) -> tuple[float, int]:
    start = time.perf_counter()
    right = sum(map(grade_one, samples))
    return time.perf_counter() - start, right


def with_the_pool(workers: int) -> Callable[[list[RewardRequest]], tuple[float, int]]:
    def run(samples: list[RewardRequest]) -> tuple[float, int]:
        with RewardPool(PARTS, workers=workers) as pool:
            for key, request in enumerate(samples[: 4 * workers]):
                pool.submit(key, request)
            pool.drain()
            start = time.perf_counter()
            for key, request in enumerate(samples):
                pool.submit(key, request)
            records = pool.drain()
            return time.perf_counter() - start, sum(bool(record.verdict) for _, record in records)

    return run


def with_multiprocessing(workers: int, chunk: int) -> Callable[[list[RewardRequest]], tuple[float, int]]:
    def run(samples: list[RewardRequest]) -> tuple[float, int]:
        with multiprocessing.get_context("forkserver").Pool(workers) as pool:
            pool.map(grade_one, samples[: 4 * workers])
            start = time.perf_counter()
            right = sum(pool.imap(grade_one, samples, chunksize=chunk))
            seconds = time.perf_counter() - start
            pool.close()
            pool.join()
        return seconds, right

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--math-verify", metavar="PYTHON", help="an interpreter that has math-verify")
    args = parser.parse_args()
    samples = requests(args.samples)
    print(f"{args.samples:,} samples, {args.workers} workers")
    print(f"{'':<44}{'samples/s':>12}{'caller, us':>12}{'workers, us':>12}")
    measure("in this process", in_this_process, samples)
    measure("the pool", with_the_pool(args.workers), samples)
    measure("the pool, one worker", with_the_pool(1), samples)
    for chunk in (1, 64):
        measure(f"multiprocessing, chunks of {chunk}", with_multiprocessing(args.workers, chunk), samples)
    if args.math_verify:
        few = max(1, args.samples // 20)
        command = [args.math_verify, "-c", MATH_VERIFY, str(few), str(args.workers)]
        rate, right, used = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        if int(right) != (few + 1) // 2:
            print(f"math-verify calls {right} of {few} right", file=sys.stderr)
        line(f"math-verify, {few:,} samples", float(rate), float("nan"), float(used) * 1e6)


if __name__ == "__main__":
    main()
