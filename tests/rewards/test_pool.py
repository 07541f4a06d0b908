"""The pool: whatever a grader does, its neighbours are graded, nothing is lost or doubled, and nobody waits for ever."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from r1jax.rewards import RewardPool, RewardPoolError, RewardRequest, Verdict

USER = """
import ctypes, os, re, subprocess, sys, threading, time
LEAKED = []
assert "jax" not in sys.modules
FORGED = '[%d, {"parts": {"accuracy": 1.0}, "verdict": "right", "reason": "forged"}]'

def act(row, completion):
    what = row.get("do")
    if what == "sleep": time.sleep(600)
    if what == "hang in C": ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock
    if what == "spin":
        while True: pass
    if what == "exit": os._exit(0)
    if what == "abort": os.abort()
    if what == "crash": ctypes.string_at(0)
    if what == "sys.exit": sys.exit(1)
    if what == "recurse": return act(row, completion)
    if what == "eat": return bytearray(1 << 40)
    if what == "print":
        for number in range(100): print(FORGED % number, flush=True)
        sys.stdout.write("x" * 100_000); os.write(1, b"[0, 1]\\n"); sys.stdin.read()
    if what == "raise": raise BaseException("not an Exception")
    if what == "children":
        child = subprocess.Popen(["sleep", "600"])
        open(row["pids"], "w").write(str(child.pid))
        time.sleep(600)
    if what == "once" and not os.path.exists(row["mark"]):
        open(row["mark"], "w").close()
        os.kill(os.getpid(), 9)
    if what == "regex": re.match("(a|a)*b", "a" * 40)
    if what == "power": (10 ** 10 ** 8) % 7
    if what == "kill": os.kill(os.getpid(), 9)
    if what == "close": os.closerange(0, 200)
    if what == "forge":
        for descriptor in range(3, 20):
            try: os.write(descriptor, b"garbage\\n[0, {}]\\n")
            except OSError: pass
    if what == "flood": return "right", "x" * 50_000_000
    if what == "interrupt": raise KeyboardInterrupt
    if what == "quit": os.kill(os.getpid(), 15)
    if what == "orphan": subprocess.Popen(["sleep", "600"])
    if what == "leak": LEAKED.append(bytearray(b"x" * (50 << 20)))
    if what == "pid": return "right", str(os.getpid())
    if what == "environment":
        return "right", ",".join(k + "=" + os.environ.get(k, "?") for k in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"))
    if what == "modules":
        return "right", " ".join(m for m in ("jax", "flax", "numpy") if m in sys.modules) or "none"
    if what == "maps":
        return "right", str(sum("jax" in line or "cuda" in line for line in open("/proc/self/maps")))
    return ("right" if completion == str(row["answer"]) else "wrong"), ""
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "pool_user.py").write_text(textwrap.dedent(USER))
    (folder / "pool_broken.py").write_text("raise RuntimeError('broken at import')")
    (folder / "pool_exits.py").write_text("raise SystemExit(3)")
    sys.path.insert(0, str(folder))
    yield "pool_user:act"
    sys.path.remove(str(folder))


def request(answer="1", completion="1", **row):
    return RewardRequest({"answer": answer, **row}, "", completion)


def gone(pid):
    for _ in range(100):
        try:
            state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_two_thousand_requests_in_any_order():
    rng = random.Random(0)
    wanted = {}
    with RewardPool({"accuracy": 1.0, "format": 1.0}, workers=2) as pool:
        got = []
        for number in rng.sample(range(2_000), 2_000):
            right = rng.random() < 0.5
            wanted[number] = "right" if right else "wrong"
            completion = f"<think>a</think><answer>{number if right else number + 1}</answer>"
            pool.submit(number, RewardRequest({"answer": str(number)}, "", completion))
            if number % 100 == 0:
                got += pool.poll()
        assert not set(dict(got)) & set(range(2_000, 3_000))
        got += pool.drain()
        assert pool.outstanding == 0 and pool.poll() == [] and pool.drain() == []
    assert len(got) == 2_000
    assert {key: str(record.verdict) for key, record in got} == wanted
    assert all(record.parts == {"accuracy": float(record.verdict is Verdict.RIGHT), "format": 1.0} for _, record in got)


def test_drain_gives_the_order_of_submission():
    keys = [("a", 3), ("b", 1), ("a", 2)] * 1
    with RewardPool(["accuracy"], workers=2) as pool:
        for key in keys:
            pool.submit(key, request())
        assert [key for key, _ in pool.drain()] == keys


@pytest.mark.parametrize("what", ["sleep", "hang in C", "spin", "regex", "power"])
def test_a_hanging_grader_is_killed_and_its_neighbours_graded(user, what):
    with RewardPool(["accuracy"], user, workers=1, timeout=1.0) as pool:
        for number in range(20):
            pool.submit(number, request(do=what if number == 7 else ""))
        records = dict(pool.drain())
    assert records.pop(7).verdict is Verdict.UNGRADED
    assert len(records) == 19 and all(record.verdict is Verdict.RIGHT for record in records.values())


@pytest.mark.parametrize("what", ["exit", "abort", "crash", "kill", "quit", "close", "forge"])
def test_a_crashing_grader_is_ungraded_and_its_neighbours_graded(user, what):
    with RewardPool(["accuracy", "format"], user, workers=2) as pool:
        for number in range(20):
            pool.submit(number, request(do=what if number in (3, 4) else ""))
        records = dict(pool.drain())
    for number in (3, 4):
        assert records[number].verdict is Verdict.UNGRADED and "killed its process" in records[number].reason
        assert records[number].parts == {"accuracy": None, "format": None}
    assert sum(record.verdict is Verdict.RIGHT for record in records.values()) == 18


def test_graders_that_misbehave_within_their_process(user):
    with RewardPool(["accuracy"], user, workers=1, memory=2 << 30) as pool:
        for what in ("sys.exit", "recurse", "eat", "raise", "print"):
            pool.submit(what, request("1", "2", do=what))
            pool.submit(f"after {what}", request())
        records = dict(pool.drain())
    for what in ("sys.exit", "recurse", "eat", "raise"):
        assert records[what].verdict is Verdict.UNGRADED, what
        assert records[f"after {what}"].verdict is Verdict.RIGHT
    assert "MemoryError" in records["eat"].reason
    assert records["print"].verdict is Verdict.WRONG  # what it printed is no verdict
    assert records["after print"].reason == ""


def test_a_worker_killed_from_outside_costs_nothing(user, tmp_path):
    with RewardPool(["accuracy"], user, workers=1) as pool:
        for number in range(20):
            pool.submit(number, request(do="once" if number == 5 else "", mark=str(tmp_path / "mark")))
        records = dict(pool.drain())
    assert (tmp_path / "mark").exists()
    assert len(records) == 20 and all(record.verdict is Verdict.RIGHT for record in records.values())


def test_workers_killed_again_and_again(user):
    with RewardPool(["accuracy"], workers=2) as pool:
        pool.submit("first", request())
        pool.drain()
        for number in range(1_000):
            pool.submit(number, request(str(number), str(number)))
            if number % 250 == 100:
                for child in list(pool._children):
                    os.kill(child.process.pid, signal.SIGKILL)
        records = dict(pool.drain())
    assert len(records) == 1_000
    assert sum(record.verdict is Verdict.RIGHT for record in records.values()) >= 992  # two deaths can meet one request


def test_any_mixture_of_crashes_loses_and_doubles_nothing(user):
    """Half of the requests misbehave in some way and workers are killed from outside; the rest are graded as if alone."""
    rng = random.Random(1)
    harmless, fatal = (
        ["interrupt", "sys.exit", "raise", "recurse", "print", "flood"],
        ["exit", "kill", "close", "forge", "crash", "abort"],
    )
    plan = {number: rng.choice(harmless + fatal) if rng.random() < 0.1 else "" for number in range(400)}
    got = []
    with RewardPool(["accuracy"], user, workers=2, timeout=20) as pool:
        for number in rng.sample(sorted(plan), len(plan)):
            wrong = rng.random() < 0.5
            pool.submit(number, request(str(number), "no" if wrong else str(number), do=plan[number], wrong=wrong))
            if number % 150 == 7 and pool._children:
                os.kill(rng.choice(pool._children).process.pid, signal.SIGKILL)
            got += pool.poll()
        got += pool.drain()
        assert pool.outstanding == 0 and pool._waiting_bytes == 0
    records = dict(got)
    assert len(got) == 400 and set(records) == set(plan)
    for number, what in plan.items():
        verdict = records[number].verdict
        if what in fatal or what in ("interrupt", "sys.exit", "raise", "recurse"):
            assert verdict is Verdict.UNGRADED, what
    ungraded = sum(record.verdict is Verdict.UNGRADED for record in records.values())
    assert (
        ungraded <= sum(what not in ("", "print", "flood") for what in plan.values()) + 4
    )  # two kills can meet one request
    assert len(records[next(n for n, what in plan.items() if what == "flood")].reason) <= 500


def test_a_full_queue_makes_submit_wait(user):
    with RewardPool(["accuracy"], user, workers=1, queue_bytes=2_000_000) as pool:
        for number in range(300):  # 30 MB
            pool.submit(number, request(str(number), str(number), text="x" * 100_000))
            assert pool._waiting_bytes <= 2_200_000
        records = pool.drain()
    assert [key for key, _ in records] == list(range(300)) and all(record.verdict for _, record in records)


def test_a_full_queue_lets_go_when_the_pool_fails_or_closes(user):
    with RewardPool(["accuracy", "pool_user:nothing"], workers=1, queue_bytes=1_000) as pool:
        with pytest.raises(RewardPoolError, match="has no 'nothing'"):
            for _ in range(10_000):
                pool.submit(0, request(text="x" * 100))
                time.sleep(0.001)
    pool = RewardPool(["accuracy"], user, workers=1, queue_bytes=1_000)
    closer = threading.Timer(1.0, pool.close)
    closer.start()
    with pytest.raises(RewardPoolError, match="closed"):
        for _ in range(10_000):
            pool.submit(0, request(do="sleep", text="x" * 600))
    closer.join()


def test_closing_ends_a_drain(user):
    pool = RewardPool(["accuracy"], user, workers=1)
    pool.submit(0, request(do="sleep"))
    closer = threading.Timer(0.5, pool.close)
    closer.start()
    with pytest.raises(RewardPoolError, match="closed"):
        pool.drain()
    closer.join()


def test_a_grader_that_leaks_is_replaced_before_it_fails(user):
    with RewardPool(["accuracy"], user, workers=1, memory=400 << 20) as pool:
        for number in range(12):  # 600 MB in all
            pool.submit(number, request(do="leak"))
            pool.submit(f"pid {number}", request(do="pid"))
        records = dict(pool.drain())
    assert all(record.verdict is Verdict.RIGHT for record in records.values())
    assert len({record.reason for key, record in records.items() if str(key).startswith("pid")}) > 1


def test_nothing_is_left_behind(user):
    before = children()
    with RewardPool(["accuracy"], user, workers=2, timeout=1.0) as pool:
        for number, what in enumerate(["exit", "sleep", "orphan", "", "kill", "pid"]):
            pool.submit(number, request(do=what))
        pool.drain()
        workers = children() - before
        assert workers
    assert children() <= before, "no zombie either"
    assert all(gone(pid) for pid in workers)


def children():
    """Process ids of this process' children, zombies among them."""
    for _ in range(100):
        with contextlib.suppress(
            FileNotFoundError, ProcessLookupError
        ):  # a thread has ended meanwhile; what it started is another's now
            tasks = os.listdir("/proc/self/task")
            return {int(pid) for task in tasks for pid in Path(f"/proc/self/task/{task}/children").read_text().split()}
    raise AssertionError("/proc/self/task has no children, or threads end all the time")


def test_children_of_a_grader_die_with_it(user, tmp_path):
    with RewardPool(["accuracy"], user, workers=1, timeout=1.0) as pool:
        pool.submit(0, request(do="children", pids=str(tmp_path / "pids")))
        assert pool.drain()[0][1].verdict is Verdict.UNGRADED
    assert gone(int((tmp_path / "pids").read_text()))


def test_workers_die_with_a_killed_parent(user, tmp_path):
    script = """
import sys
from r1jax.rewards import RewardPool, RewardRequest
pool = RewardPool(["accuracy"], "pool_user:act", workers=1, timeout=600)
pool.submit(0, RewardRequest({"do": "children", "pids": sys.argv[1]}, "", ""))
pool.drain()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "pids")], env=environment)
    for _ in range(400):
        if (tmp_path / "pids").exists() and (tmp_path / "pids").read_text():
            break
        time.sleep(0.05)
    child = int((tmp_path / "pids").read_text())
    worker = int(open(f"/proc/{child}/stat").read().rpartition(")")[2].split()[1])
    parent.kill()
    parent.wait()
    assert gone(worker)
    os.kill(child, signal.SIGKILL)  # the grandchild of a killed run is the sandbox's business


def test_workers_see_no_accelerator_and_load_no_jax(user):
    with RewardPool(["accuracy"], user, workers=1) as pool:
        for what in ("environment", "modules", "maps"):
            pool.submit(what, request(do=what))
        reasons = {key: record.reason for key, record in pool.drain()}
    assert reasons == {"environment": "JAX_PLATFORMS=cpu,CUDA_VISIBLE_DEVICES=", "modules": "none", "maps": "0"}


def test_submit_never_waits_and_close_ends_everything(user):
    pool = RewardPool(["accuracy"], user, workers=1, timeout=60)
    start = time.perf_counter()
    for number in range(200):  # 40 MB: far more than a pipe holds, behind a grader that sleeps
        pool.submit(number, request(do="sleep", text="x" * 200_000))
    assert time.perf_counter() - start < 10 and pool.poll() == []
    while not pool._children or not pool._children[0].jobs:
        time.sleep(0.01)
    pid = pool._children[0].process.pid
    pool.close()
    assert gone(pid)
    with pytest.raises(RewardPoolError, match="closed"):
        pool.submit(0, request())
    pool.close()


def test_large_requests_and_awkward_text_arrive_whole():
    texts = ["72" + " " * 300_000, "\ud800 72", "line\nline\r\u2028\x00 72", "﷽ 七十二 72"]
    with RewardPool(["accuracy"], workers=1) as pool:
        for number, text in enumerate(texts):
            pool.submit(number, RewardRequest({"answer": "72"}, "\n" * 100_000, f"{text}\n<answer>72</answer>"))
        assert [record.verdict for _, record in pool.drain()] == [Verdict.RIGHT] * 4


def test_bad_input_is_refused_before_any_process_starts():
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        RewardPool(["acuracy"])
    with pytest.raises(ValueError, match="did you mean 'search'"):
        RewardPool(["accuracy"], "serch")
    with pytest.raises(ValueError, match="positive"):
        RewardPool(["accuracy"], timeout=0)
    with RewardPool(["accuracy"]) as pool, pytest.raises(ValueError, match="request 'k' must hold plain data"):
        pool.submit("k", request(answer=object()))


@pytest.mark.parametrize("name", ["no_such_module:f", "pool_user:nothing", "pool_broken:f"])
def test_a_reward_that_cant_be_imported_stops_the_run(user, name):
    with RewardPool(["accuracy", name], workers=1) as pool:
        pool.submit(0, request())
        with pytest.raises(RewardPoolError, match="can't be imported|broken at import"):
            pool.drain()


@pytest.mark.parametrize(
    "names, message",
    [
        (
            ["pool_user:atc"],
            "reward 'pool_user:atc' can't be imported: pool_user has no 'atc'; did you mean 'pool_user:act'",
        ),
        (["no_such_module:f"], "No module named 'no_such_module'"),
        (["pool_broken:f"], "'pool_broken:f' can't be imported: RuntimeError: broken at import"),
        (["pool_exits:f"], "'pool_exits:f' can't be imported: SystemExit: 3"),
        (["accuracy", "pool_user:FORGED"], "is a str, not a function"),
    ],
)
def test_names_are_tried_before_there_is_anything_to_grade(user, names, message):
    with pytest.raises(RewardPoolError, match=message):
        RewardPool(names).check()
    assert "pool_user" not in sys.modules, "the caller imports no code of the user's"


def test_a_module_where_the_command_is_given(tmp_path, monkeypatch):
    (tmp_path / "given_here.py").write_text("def three(request): return 3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    with RewardPool(["given_here:three"], workers=1) as pool:
        pool.submit(0, request())
        assert pool.drain()[0][1].parts == {"given_here:three": 3.0}


def test_names_that_can_be_imported_pass(user):
    pool = RewardPool(["accuracy", user], default_grader=user)
    pool.check()
    assert pool._thread is None
    with pytest.raises(RewardPoolError, match="grader 'pool_user:nothing'"):
        RewardPool([], default_grader="pool_user:nothing").check()


def test_a_worker_that_hangs_at_its_start_is_given_up(user):
    with pytest.raises(RewardPoolError, match="did not start within 0.05 s"):
        RewardPool([user], start_timeout=0.05).check()


def test_an_unused_pool_starts_nothing():
    with RewardPool(["accuracy"]) as pool:
        assert pool.poll() == [] and pool.drain() == [] and pool._thread is None


@pytest.mark.slow
def test_throughput():
    with RewardPool(["accuracy", "format"], workers=1) as pool:
        pool.submit("first", request())
        pool.drain()
        start = time.perf_counter()
        for number in range(10_000):
            pool.submit(number, request(str(number), f"<think>a</think><answer>{number}</answer>"))
        assert len(pool.drain()) == 10_000
        assert time.perf_counter() - start < 10  # 5,000 a second and more on a core of its own
