"""Programs that try to be graded right without being right, or to do harm. ``SCRIPTS`` print, ``FUNCTIONS`` define f.

Of each script the right output would be "42"; of each function, f(1) == 2, f(2) == 3 and f([1]) == [2]. None does that.
"""

import textwrap

SCRIPTS = {
    "fork bomb": """
        import os
        while True:
            try: os.fork()
            except OSError: pass
        """,
    "fork bomb in a shell": """
        import os
        os.execv("/bin/sh", ["sh", "-c", "b() { b | b & }; b; wait"])
        """,
    "thread bomb": """
        import threading, time
        def more():
            while True:
                try: threading.Thread(target=more).start()
                except RuntimeError: time.sleep(0.01)
        more()
        """,
    "eats memory": """
        kept = []
        while True: kept.append(bytearray(1 << 24))
        """,
    "eats memory in many processes": """
        import os, time
        for _ in range(3): os.fork()
        kept = bytearray(150 << 20)
        for i in range(0, len(kept), 4096): kept[i] = 1
        time.sleep(60)
        """,
    "one huge allocation": "x = bytearray(1 << 44)",
    "memory that no process owns": """
        import os, ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        made = 0
        for number in (319, 279):
            if libc.syscall(number, b"x", 0) >= 0: made += 1
        if libc.shmget(0, 1 << 30, 0o1600) >= 0: made += 1
        print("made", made)
        """,
    "fills the disk": """
        written = 0
        try:
            with open("big", "wb") as file:
                while True: written += file.write(b"x" * (1 << 20)); file.flush()
        except OSError: pass
        for i in range(1000):
            try:
                with open(f"big{i}", "wb") as file: written += file.write(b"x" * (1 << 22))
            except OSError: break
        print("wrote", written < 100 << 20)
        """,
    "fills the inodes": """
        import os
        made = 0
        try:
            for made in range(10_000_000): os.mkdir(str(made))
        except OSError: pass
        print("made", made < 5000)
        """,
    "writes everywhere": """
        import os
        done = []
        for folder in ["/", "/dev", "/dev/shm", "/etc", "/usr", "/usr/bin", "/bin", "/root", "/home", "/var/tmp", "/run", "/proc",
                       "/proc/sys/kernel", "/sandbox", "/sandbox/inside", os.__file__.rpartition("/")[0], "/sys"]:
            try:
                open(folder + "/mark", "w").close(); done.append(folder)
            except OSError: pass
        for path in ["/proc/sys/kernel/hostname", "/proc/self/oom_score_adj", "/proc/sysrq-trigger", "/proc/self/uid_map"]:
            try:
                os.write(os.open(path, os.O_WRONLY), b"-1000"); done.append(path)
            except OSError: pass
        print("done", done)
        """,
    "reads secrets": """
        import os, glob, sys
        found = []
        for path in ["/etc/passwd", "/etc/shadow", "/root/.ssh", "/root/.bashrc", "/home", "/work", "/proc/kcore", "/proc/1/environ",
                     "/proc/1/mem", "/proc/1/fd/0", "/proc/1/root/tmp", "/sys", "/run", "/var", "/proc/kmsg", "/proc/sys"]:
            try:
                open(path).read(1) if not os.path.isdir(path) else os.listdir(path)
                found.append(path)
            except (OSError, UnicodeDecodeError): pass
        found += [name for name in os.environ if name.startswith(("R1JAX", "SECRET", "AWS"))]
        found += glob.glob("/usr/lib/python3*/*-packages/*") + [p for p in sys.path if "-packages" in p and os.listdir(p)]
        print("found", found)
        """,
    "opens sockets": """
        import socket, errno
        done = []
        for family in range(0, 46):
            for kind in (1, 2, 3, 5):
                try:
                    s = socket.socket(family, kind); done.append((family, kind)); s.close()
                except OSError: pass
        for address in ["\\0abstract", "/run/docker.sock", "/tmp/.X11-unix/X0", "/dev/log"]:
            try:
                socket.socket(socket.AF_UNIX).connect(address); done.append(address)
            except OSError: pass
        print("done", [d for d in done if not isinstance(d, tuple) or d[0] != socket.AF_UNIX])
        """,
    "kills everyone": """
        import os, signal
        for pid in [-1, 1, os.getppid(), *range(2, 400)]:
            if pid != os.getpid():
                try: os.kill(pid, signal.SIGKILL)
                except OSError: pass
        for number in range(1, 65):
            try: os.kill(1, number)
            except OSError: pass
        print("alive")
        """,
    "survives its parent": """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                import signal
                for s in range(1, 64):
                    try: signal.signal(s, signal.SIG_IGN)
                    except (OSError, ValueError): pass
                time.sleep(1000)
            os._exit(0)
        print("left")
        """,
    "sleeps for ever": "import time; time.sleep(1e6)",
    "stops itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "stops its group": "import os, signal; os.killpg(0, signal.SIGSTOP)",
    "ignores signals and spins": """
        import signal
        for s in range(1, 64):
            try: signal.signal(s, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass
        """,
    "spins in C": "print(9 ** (9 ** 9))",
    "hangs in C": "import ctypes; ctypes.PyDLL(None).sleep(10_000)",
    "catastrophic pattern": "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "aborts": "import os; os.abort()",
    "recurses in Python": "import sys; sys.setrecursionlimit(10**9)\\nf = lambda: f()\\nf()".replace("\\n", "\n"),
    "recurses in C": """
        import sys; sys.setrecursionlimit(10**9)
        class A: pass
        A.__repr__ = lambda self: repr(A())
        repr(A())
        """,
    "floods standard output": "while True: print('42' * 10_000)",
    "floods standard error": "import sys\nwhile True: sys.stderr.write('x' * 100_000)",
    "floods inherited descriptors": """
        import os
        for fd in range(3, 2000):
            for _ in range(10):
                try: os.write(fd, b'R0 0\\n{"test": 0, "passed": true}\\n{"done": true}\\n[1, {"verdict": "right"}]\\n' * 100)
                except OSError: break
        print("no")
        """,
    "not UTF-8": "import sys; sys.stdout.buffer.write(b'\\xff\\xfe42\\n')",
    "null bytes": "print('42\\0')",
    "exits early": "import os; os._exit(0)",
    "exits at once": "import sys; sys.exit()",
    "exits with the answer's number": "import sys; sys.exit(42)",
    "right but fails": "print(42); raise SystemExit(3)",
    "right but crashes at its end": "import atexit, os; print(42, flush=True); atexit.register(os.abort)",
    "writes the expected output": """
        for name in ("expected", "output", "output.txt", "expected_output", "answer", "result", "/tmp/expected"):
            open(name, "w").write("42")
        """,
    "looks for the expected output": """
        import gc, os, sys
        text = repr([o for o in gc.get_objects() if isinstance(o, (str, dict, list, tuple))])[:1 << 20]
        for fd in range(0, 64):
            try: text += os.pread(fd, 1 << 20, 0).decode("latin-1")
            except OSError: pass
        try: text += open("/proc/self/environ").read() + open("/proc/self/cmdline").read()
        except OSError: pass
        for place in os.walk("/tmp"): text += repr(place)
        import re
        print(re.findall(r"secret-expected-(?!\\()\\w+", text))
        """,
    "raises its limits": """
        import resource
        raised = []
        for name in ("AS", "CPU", "FSIZE", "NPROC", "NOFILE", "CORE"):
            kind = getattr(resource, "RLIMIT_" + name)
            soft, hard = resource.getrlimit(kind)
            for want in (hard + 1, resource.RLIM_INFINITY):
                try: resource.setrlimit(kind, (want, want)); raised.append(name)
                except (OSError, ValueError): pass
        print("raised", raised)
        """,
    "makes namespaces and mounts": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        done = []
        for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x10020000):
            if libc.unshare(flag) == 0: done.append(hex(flag))
            if libc.syscall(56, flag | 17, 0, 0, 0, 0) >= 0: done.append("clone")
        if libc.mount(b"x", b"/tmp", b"tmpfs", 0, b"") == 0: done.append("mount")
        if libc.umount2(b"/proc", 2) == 0: done.append("umount")
        if libc.chroot(b"/tmp") == 0: done.append("chroot")
        if libc.ptrace(16, 1, 0, 0) == 0: done.append("ptrace")
        try: os.setuid(0); done.append("setuid")
        except OSError: pass
        print("done", done, open("/proc/self/status").read().count("0000003fffffffff") if os.path.exists("/proc/self/status") else 0)
        """,
    "sees other processes": """
        import os
        try: print("sees", sorted(p for p in os.listdir("/proc") if p.isdigit() and int(p) > 2 and int(p) != os.getpid()))
        except OSError: print("none")
        """,
    "no Python at all": "this is not ( a program",
    "null bytes in the source": "print(42)\0\0",
    "deep nesting": "x = " + "(" * 100_000 + ")" * 100_000,
    "deep operators": "x = " + "-" * 200_000 + "1",
    "a lone surrogate in the source": "print('\ud800')",
    "megabytes of source": "x = 1\n" * 2_000_000,
    "a huge constant": "x = (1 << 100) ** 100000000 if 0 else 'x' * (1 << 40)",
}

FUNCTIONS = {
    "exits at import": "import os; os._exit(0)",
    "exits in the call": "def f(x):\n import os; os._exit(0)",
    "SystemExit in the call": "def f(x): raise SystemExit(0)",
    "SystemExit at import": "raise SystemExit(0)",
    "KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
    "equal to everything": """
        class Yes(int):
            __eq__ = lambda s, o: True
            __ne__ = lambda s, o: False
            __hash__ = int.__hash__
        def f(x): return Yes()
        """,
    "an object equal to everything": """
        class Yes:
            __eq__ = lambda s, o: True
            __class__ = property(lambda s: int)
            def __index__(s): return 2
            __int__ = __index__
            def __getattr__(s, name): return Yes()
        def f(x): return Yes()
        """,
    "patches builtins": """
        import builtins, json, sys, os
        builtins.AssertionError = type("Never", (Exception,), {})
        builtins.__build_class__ = builtins.print
        builtins.all = builtins.any = builtins.isinstance = lambda *a: True
        json.dumps = lambda *a, **k: '{"number": 1, "value": 2}'
        def f(x): return "no"
        """,
    "patches unittest and pytest": """
        import unittest
        unittest.TestCase.assertEqual = lambda *a, **k: None
        unittest.main = lambda *a, **k: None
        def f(x): return None
        """,
    "traces the callers": """
        import sys
        seen = []
        def trace(frame, event, arg):
            seen.append(repr(frame.f_locals)); return trace
        sys.settrace(trace); sys.setprofile(trace)
        def f(x):
            frame = sys._getframe()
            while frame:
                for name, value in list(frame.f_globals.items()) + list(frame.f_locals.items()):
                    if "passed" in str(name): frame.f_globals[name] = True
                frame = frame.f_back
            return "no"
        """,
    "forges replies": """
        import os, json
        def message(m):
            d = json.dumps(m).encode(); return len(d).to_bytes(4, "big") + d
        for fd in range(3, 20):
            try:
                for n in range(1, 30):
                    os.write(fd, b'{"test": 0, "passed": true}\\n{"test": 1, "passed": true}\\n{"test": 2, "passed": true}\\n{"done": true}\\n')
            except OSError: pass
        def f(x): return "no"
        """,
    "answers for all calls beforehand": """
        import os, json
        def message(m):
            d = json.dumps(m).encode(); return len(d).to_bytes(4, "big") + d
        for fd in range(3, 20):
            try:
                for n in range(1, 30): os.write(fd, message({"number": n, "value": True}))
            except OSError: pass
        def f(x): return "no"
        """,
    "a huge message": """
        import os
        for fd in range(3, 20):
            try: os.write(fd, b"\\x7f\\xff\\xff\\xff" + b"x" * 1000)
            except OSError: pass
        def f(x): return 0
        """,
    "nonsense messages": """
        import os, json
        def message(d): return len(d).to_bytes(4, "big") + d
        for fd in range(3, 20):
            for d in (b"[]", b"[" * 100_000, b"null", b'{"number": 1, "value": {"a": 1}}', b"\\xff", b'{"number": 1e999}'):
                try: os.write(fd, message(d))
                except OSError: pass
        def f(x): return 0
        """,
    "closes what it finds": "import os\nos.closerange(0, 1000)\ndef f(x): return 0",
    "changes the arguments": """
        def f(x):
            if isinstance(x, list): x.clear(); x.append(2); return None
            return None
        """,
    "returns something huge": "def f(x): return 'x' * (1 << 28)",
    "returns something deep": """
        def f(x):
            deep = []
            for _ in range(100_000): deep = [deep]
            return deep
        """,
    "returns itself": "def f(x):\n a = []; a.append(a); return a",
    "returns a billion-item range": "def f(x): return range(1 << 40)",
    "returns an endless iterator": "import itertools\ndef f(x): return itertools.count()",
    "floods standard output": "def f(x):\n while True: print('x' * 10_000)",
    "forks and both answer": "import os\ndef f(x):\n os.fork(); return 0",
    "spins": "def f(x):\n while True: pass",
    "sleeps": "import time\ndef f(x): time.sleep(1e6)",
    "reads its input": "def f(x): return int(input())",
    "raises assertion": "def f(x): raise AssertionError",
    "raises what is no exception by name": "class Odd(BaseException): pass\ndef f(x): raise Odd",
    "an exception that can't be shown": """
        class Odd(Exception):
            def __str__(self): raise SystemExit(0)
        def f(x): raise Odd
        """,
    "no such function": "def g(x): return x + 1",
    "no function": "f = 3",
    "no Python": "def f(x: return",
    "ends while nobody looks": """
        import threading, os, time
        def f(x): return x
        threading.Thread(target=lambda: (time.sleep(0.01), os._exit(0))).start()
        """,
    "at exit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): return 0",
}

CPP = {
    "includes a device": '#include "/dev/zero"\nint main() {}',
    "includes an endless device": '#include "/dev/urandom"\nint main() {}',
    "includes secrets": '#include "/etc/passwd"\nint main() {}',
    "template bomb": """
        template <int n, int m> struct A { static const long v = A<n - 1, m>::v + A<n - 1, m + 1>::v; };
        template <int m> struct A<0, m> { static const long v = m; };
        int main() { return A<800, 1>::v; }
        """,
    "endless constexpr": """
        constexpr long f(long n) { long s = 0; for (long i = 0; i < n; ++i) for (long j = 0; j < n; ++j) s += j; return s; }
        template <long n> struct B { static const long v = f(900) + B<n - 1>::v; };
        template <> struct B<0> { static const long v = 0; };
        int main() { return B<800>::v; }
        """,
    "huge executable": "int a[1 << 28] = {1}; int main() {}",
    "macro bomb": "\n".join(
        ["#define A0 x x x x x x x x x x"]
        + [f"#define A{i} " + f"A{i - 1} " * 10 for i in range(1, 12)]
        + ["int main() { A11 }"]
    ),
    "include itself": "#include __FILE__\nint main() {}",
    "assembler reads": 'asm(".incbin \\"/etc/shadow\\""); int main() {}',
    "missing semicolon": "int main() { return 0 }",
}

for programs in (SCRIPTS, FUNCTIONS, CPP):
    for name, text in programs.items():
        programs[name] = textwrap.dedent(text).strip("\n") if "\n" in text and len(text) < 10_000 else text
