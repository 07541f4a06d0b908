"""The sandbox: which walls are chosen, refusal, what is left behind, users, threads, killed callers."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from family import alive, descendants

from r1jax.rewards import InputOutput, RewardPool, RewardRequest, Verdict, grade, run_code
from r1jax.rewards.code import sandbox as sandboxes
from r1jax.rewards.code.limits import Limits
from r1jax.rewards.code.sandbox import Program, SandboxFailed, borrow, choose
from r1jax.rewards.code.walls import SandboxUnavailable

TESTS = [InputOutput("", "42")]
REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(sandboxes.__file__), "../../.."))


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.delenv(sandboxes.ENVIRONMENT_NAME, raising=False)
    sandboxes._chosen.cache_clear()
    sandboxes.close_all()
    yield
    sandboxes._chosen.cache_clear()


def without_bubblewrap(tmp_path):
    """A PATH that has everything but bwrap."""
    for folder in os.environ["PATH"].split(os.pathsep):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name != "bwrap" and not (tmp_path / name).exists():
                (tmp_path / name).symlink_to(os.path.join(folder, name))
    return str(tmp_path)


def test_bubblewrap_is_the_first_choice():
    if shutil.which("bwrap") is None:
        pytest.skip("no bwrap on the PATH")
    try:
        assert choose() == "bubblewrap"
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def test_without_bubblewrap_plain_namespaces_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", without_bubblewrap(tmp_path))
    with pytest.raises(SandboxUnavailable, match="bwrap is not on the PATH"):
        run_code("print(42)", TESTS, sandbox="bubblewrap")
    try:
        assert choose() == "namespaces"
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    assert run_code("print(42)", TESTS)


REFUSED = """
import sys
from r1jax.rewards.code.inside import linux, system_calls
system_calls._DENIED = {name: system_calls._DENIED[name] for name in ("unshare", "setns", "mount")}
linux.install_filter(system_calls.filter_program())  # as a container's
from r1jax.rewards import InputOutput, RewardRequest, grade, run_code
from r1jax.rewards.code.walls import SandboxUnavailable
tests = [InputOutput("", "42")]
try:
    run_code("print(42)", tests)
except SandboxUnavailable as error:
    print(error)
record = grade(RewardRequest({"tests": [{"input": "", "output": "42"}], "grader": "code"}, "", "print(42)"), ["accuracy"])
print(record.verdict, record.parts, "can't be isolated" in record.reason)
print(bool(run_code("print(42)", tests, sandbox="none")), bool(run_code("print(41)", tests, sandbox="none")))
"""


def run_python(source, **environment):
    environment = {**os.environ, "PYTHONPATH": REPOSITORY, **environment}
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=environment, timeout=120)


def test_where_namespaces_are_denied_programs_are_refused():
    done = run_python(REFUSED)
    assert done.returncode == 0, done.stderr
    refusal, record, forced = done.stdout.strip().split("\n")
    bubblewrap = "bubblewrap: " if shutil.which("bwrap") else "bwrap is not on the PATH; "
    assert refusal.startswith(f"programs can't be isolated on this machine, so none is run. Tried: {bubblewrap}")
    assert "namespaces: " in refusal and "sandbox='none' or R1JAX_CODE_SANDBOX=none" in refusal
    assert record == "ungraded {'accuracy': None} True"
    assert forced == "True False"


def test_the_environment_may_choose(monkeypatch):
    monkeypatch.setenv(sandboxes.ENVIRONMENT_NAME, "none")
    assert choose() == "none" and choose("namespaces") == "namespaces"
    monkeypatch.setenv(sandboxes.ENVIRONMENT_NAME, "chroot")
    with pytest.raises(
        ValueError, match="R1JAX_CODE_SANDBOX must be one of auto, bubblewrap, namespaces, none, not 'chroot'"
    ):
        run_code("print(42)", TESTS)


@pytest.mark.parametrize(
    "source, error",
    [
        ("import os\nfor _ in range(3): os.fork()\nimport time; time.sleep(100)", "time"),
        ("import socket; socket.create_connection(('127.0.0.1', 1))", "run"),
        ("x = bytearray(1 << 40)", "memory"),
        (
            "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True); print(42, flush=True); 1 / 0",
            "run",
        ),
    ],
)
def test_without_isolation_limits_still_hold(source, error):
    result = run_code(source, TESTS, sandbox="none", limits=Limits(wall_seconds=1))
    assert (result.verdict, result.error) == (Verdict.WRONG, error)
    assert run_code("print(42)", TESTS, sandbox="none")


def test_users_and_names_inside(walls):
    source = """
import os
print(os.getuid() not in (0,), os.getgid() not in (0,), os.getgroups() == [] or os.getuid() == os.getgroups()[0], os.uname().nodename)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print([status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")])
"""
    none = "0" * 16
    wanted = f"True True True sandbox\n{[none] * 5 + ['1', '2']}"
    result = run_code(source, [InputOutput("", wanted)], sandbox=walls)
    if os.geteuid() == 0:
        assert result, result.reason
    else:
        assert "sandbox" in result.reason or result  # the caller's own groups can't be dropped


def test_a_caller_that_is_not_root(walls):
    """The same walls for a plain user (its own user namespace has one user only)."""
    if os.geteuid() != 0:
        pytest.skip("this caller is none")
    python = "/usr/bin/python3"
    if shutil.which("setpriv") is None or not os.path.exists(python):
        pytest.skip("no setpriv or no system Python")
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True
    )
    if version.stdout.strip() != "True" or not os.access(REPOSITORY, os.R_OK):
        pytest.skip("no system Python of 3.11 or later")
    source = f"""
import os
from r1jax.rewards import Asserts, InputOutput, run_code
fork = "import os, time\\nfor _ in range(40): os.fork()"
signals = "import os\\nfor n in range(1, 65): os.kill(1, n)\\nprint('alive')"
escape = "print(open('/proc/1/environ').read(), open('/proc/1/mem', 'rb').read(1))"
print([bool(run_code("print(42)", [InputOutput("", "42")], sandbox={walls!r})),
       bool(run_code("def f(x): return x", Asserts(["assert f(1) == 1"]), sandbox={walls!r})),
       run_code(fork, [InputOutput("", "42")], sandbox={walls!r}).verdict == "wrong",
       run_code(signals, [InputOutput("", "42")], sandbox={walls!r}).reason.endswith("'alive', not '42'"),
       "PermissionError" in run_code(escape, [InputOutput("", "42")], sandbox={walls!r}).reason])
"""
    command = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", python, "-c", textwrap.dedent(source)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": REPOSITORY, "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, cwd="/")
    if "No module named 'r1jax'" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("the package can't be read by another user here")
    if "SandboxUnavailable" in done.stderr:
        pytest.skip("no user namespaces for plain users here")
    assert done.stdout.strip() == str([True] * 5), done.stderr


def test_a_container_that_hides_parts_of_its_proc(walls):
    """No new /proc can be mounted there: programs see an empty one, never the machine's."""
    source = f"""
import os
from r1jax.rewards import Asserts, InputOutput, Limits, run_code
print(bool(run_code("import os; print(os.listdir('/proc'))", [InputOutput("", "[]")], sandbox={walls!r})),
      bool(run_code("def f(x): return x", Asserts(["assert f(3) == 3"]), sandbox={walls!r})),
      run_code("while True: pass", [InputOutput("", "")], sandbox={walls!r}, limits=Limits(wall_seconds=0.3)).verdict)
"""
    command = [
        "unshare",
        "-m",
        "sh",
        "-c",
        'mount -t tmpfs hidden /proc/irq && exec "$0" "$@"',
        sys.executable,
        "-c",
        source,
    ]
    environment = {**os.environ, "PYTHONPATH": REPOSITORY}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.stdout.strip() in ("True True wrong", "True True ungraded"), done.stderr


def test_a_program_that_is_ended_leaves_no_process(walls):
    source = """
import os, time
for _ in range(3): os.fork()
os.setsid() if os.getpid() != os.getpgid(0) else None
time.sleep(1000)
"""
    result = run_code(source, TESTS, limits=Limits(wall_seconds=0.5), sandbox=walls)
    assert not result
    with borrow(walls) as sandbox:
        keeper = sandbox._outer.process.pid
        children = descendants(keeper)
        # bwrap, its init and the keeper, or the starter and the keeper: nothing else.
        assert len(children) <= 2


def test_sandboxes_are_used_again_and_end_when_told(walls):
    sandboxes.close_all()
    run_code("print(42)", TESTS, sandbox=walls)
    with borrow(walls) as first:
        keeper = first._outer.process.pid
        with borrow(walls) as second:
            assert second is not first
    with borrow(walls) as again:
        assert again in (first, second)
    inner = descendants(keeper)
    sandboxes.close_all()
    assert inner and not [pid for pid in [keeper, *inner] if alive(pid)]


def kill_all(root):
    for pid in [*descendants(root), root]:
        with contextlib.suppress(ProcessLookupError):  # it may go with those before it
            os.kill(pid, signal.SIGKILL)


def test_a_keeper_that_dies_is_replaced(walls):
    with borrow(walls) as sandbox:
        outer = sandbox._outer.process
    kill_all(outer.pid)
    outer.wait()
    assert run_code("print(42)", TESTS, sandbox=walls)


def test_a_keeper_that_dies_during_a_run_leaves_it_ungraded(walls):
    def kill():
        time.sleep(0.5)
        kill_all(sandbox._outer.process.pid)

    with borrow(walls) as sandbox:
        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises(SandboxFailed):
            sandbox.run([Program("script", {"source": b"import time; time.sleep(100)"})], Limits(), 20)
        thread.join()
    assert sandbox.broken and run_code("print(42)", TESTS, sandbox=walls)


def test_many_threads_at_once(best):
    def one(number):
        return run_code(f"import time; time.sleep(0.05); print({number})", [InputOutput("", str(number % 7))], sandbox=best)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(24)))
    assert [bool(result) for result in results] == [number == number % 7 for number in range(24)]
    # The threads that started sandboxes are gone; the sandboxes serve on.
    with borrow(best) as sandbox:
        assert sandbox.alive()


def test_a_forked_caller_has_sandboxes_of_its_own(best):
    run_code("print(42)", TESTS, sandbox=best)
    source = """
import os, sys
from r1jax.rewards import InputOutput, run_code
tests = [InputOutput("", "42")]
assert run_code("print(42)", tests)
pid = os.fork()
assert run_code("print(42)", tests) and not run_code("print(41)", tests)
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert run_code("print(42)", tests)
print("both")
"""
    done = run_python(source)
    assert done.stdout.strip() == "both", done.stderr


def test_a_killed_caller_takes_its_sandbox_with_it(walls):
    source = f"""
import os, sys
from r1jax.rewards import InputOutput, run_code
from r1jax.rewards.code.sandbox import borrow
with borrow({walls!r}) as sandbox: print(sandbox._outer.process.pid, flush=True)
run_code("import time, os; os.fork(); time.sleep(1000)", [InputOutput("", "")], sandbox={walls!r})
"""
    environment = {**os.environ, "PYTHONPATH": REPOSITORY}
    caller = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, env=environment)
    keeper = int(caller.stdout.readline())
    deadline = time.monotonic() + 20
    while len(descendants(keeper)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    everyone = [keeper, *descendants(keeper)]
    assert len(everyone) >= 5
    caller.kill()
    caller.wait()
    caller.stdout.close()
    deadline = time.monotonic() + 20
    while any(map(alive, everyone)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in everyone if alive(pid)]


@pytest.mark.slow
def test_a_busy_machine_is_not_the_programs_fault(walls):
    run_code("print(42)", TESTS, sandbox=walls)
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in range(6 * (os.cpu_count() or 1))
    ]
    try:
        busy = run_code("while True: pass", TESTS, limits=Limits(wall_seconds=2), sandbox=walls)
        idle = run_code("import time; time.sleep(100)", TESTS, limits=Limits(wall_seconds=2), sandbox=walls)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert busy.verdict is Verdict.UNGRADED and "the machine is too busy" in busy.reason
    assert (idle.verdict, idle.error) == (Verdict.WRONG, "time")


def test_in_the_reward_pool(best):
    row = {"tests": [{"input": "", "output": "42"}], "grader": "code"}
    with RewardPool(["accuracy"], workers=1, timeout=60) as pool:
        for number, program in enumerate(
            ["print(42)", "print(41)", "while True: print('x' * 100_000)", "import os; os.kill(-1, 9)", "print(42)"]
        ):
            pool.submit(number, RewardRequest(row, "", f"```python\n{program}\n```"))
        verdicts = [record.verdict for _, record in pool.drain()]
    assert verdicts == [Verdict.RIGHT, Verdict.WRONG, Verdict.WRONG, Verdict.WRONG, Verdict.RIGHT]
    assert grade(RewardRequest(row, "", "print(42)"), ["accuracy"]).parts == {"accuracy": 1.0}


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_hundreds_of_runs_leave_nothing(best):
    many_runs(best, 100)


@pytest.mark.slow
def test_thousands_of_runs_leave_nothing(walls):
    many_runs(walls, 2_000)


def many_runs(walls, count):
    run_code("print(42)", TESTS, sandbox=walls)
    before = open_descriptors()
    for number in range(count):
        source = (
            "import os\nopen('file', 'w').write('x' * 1000)\nif os.fork(): print(42)" if number % 10 == 0 else "print(42)"
        )
        assert run_code(source, TESTS, sandbox=walls)
    assert open_descriptors() <= before + 2
    with borrow(walls) as sandbox:
        assert len(descendants(sandbox._outer.process.pid)) <= 2
        probe = b"import os; print(len(os.listdir('/proc')), open('/proc/self/mountinfo').read().count(chr(10)))"
        first, second = (
            sandbox.run([Program("script", {"source": probe})], Limits(), 10)[0].outputs["stdout"] for _ in range(2)
        )
        assert first == second and int(first.split()[1]) < 60
