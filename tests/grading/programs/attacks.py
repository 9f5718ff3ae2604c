"""Programs that mean harm. Those of ``HARMS`` define ``harm()``, which returns what it got away with.

``OUTSIDE`` stands for a folder that anyone may write in, with a file ``file`` that anyone may write to.
"""

from __future__ import annotations

_TRY = """
import ctypes, fcntl, os, resource, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
PARENT = os.getppid()

def tried(**attempts):
    done = []
    for name, attempt in attempts.items():
        try:
            result = attempt()
        except (OSError, ValueError, MemoryError):
            continue
        if not (isinstance(result, int) and not isinstance(result, bool) and result < 0):
            done.append(name)
    return done

def call(number, *arguments):
    return libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
"""

HARMS = {
    "files outside": """
def harm():
    path = "OUTSIDE/file"
    return tried(
        truncate=lambda: os.truncate(path, 0),
        write=lambda: open(path, "a"),
        create=lambda: open("OUTSIDE/new", "w"),
        remove=lambda: os.remove(path),
        rename=lambda: os.rename(path, "mine"),
        link=lambda: os.link(path, "mine"),
        folder=lambda: os.mkdir("OUTSIDE/folder"),
        symbolic=lambda: os.symlink("x", "OUTSIDE/link"),
        read=lambda: open(path),
        names=lambda: os.listdir("OUTSIDE"),
        home=lambda: os.listdir(os.path.expanduser("~root")),
        passwords=lambda: open("/etc/shadow"),
        users=lambda: open("/etc/passwd"),
        handle=lambda: call(304, -100, 0, 0),
        memory=lambda: open("/dev/shm/x", "w"),
    )
""",
    "modes, owners, times and attributes": """
def harm():
    path = "OUTSIDE/file"
    return tried(
        mode=lambda: os.chmod(path, 0o600),
        owner=lambda: os.chown(path, 1, 1),
        times=lambda: os.utime(path, (0, 0)),
        attribute=lambda: os.setxattr(path, "user.x", b"x"),
        away=lambda: os.removexattr(path, "user.x"),
        mode_by_descriptor=lambda: os.fchmod(os.open(path, os.O_PATH), 0o600),
        link_owner=lambda: os.lchown(path, 1, 1),
        new_mode=lambda: call(452, -100, path.encode(), 0o600, 0),
    )
""",
    "signals, limits and priorities of others": """
def by_signal():
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, PARENT)
    fcntl.fcntl(reader, 10, 9)
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)
    os.write(writer, b"x")

def harm():
    return tried(
        kill=lambda: os.kill(PARENT, 9),
        all=lambda: os.kill(-1, 9),
        group=lambda: os.killpg(0, 9),
        owner=by_signal,
        owner_of_terminal=lambda: fcntl.ioctl(0, 0x8901, struct.pack("i", PARENT)),
        thread=lambda: call(200, PARENT, 9),
        thread_of=lambda: call(234, PARENT, PARENT, 9),
        queue=lambda: call(129, PARENT, 9, 0),
        descriptor=lambda: os.pidfd_open(PARENT),
        limit=lambda: resource.prlimit(PARENT, resource.RLIMIT_CPU, (1, 1)),
        look=lambda: resource.prlimit(PARENT, resource.RLIMIT_CPU),
        nice=lambda: os.setpriority(os.PRIO_PROCESS, PARENT, 19),
        own_nice=lambda: os.nice(1),
        affinity=lambda: os.sched_setaffinity(PARENT, {0}),
        policy=lambda: os.sched_setscheduler(PARENT, 5, os.sched_param(0)),
        disk=lambda: call(251, 1, PARENT, 0),
    )
""",
    "the memory and environment of others": """
def harm():
    buffer = ctypes.create_string_buffer(64)
    return tried(
        environment=lambda: open(f"/proc/{PARENT}/environ").read(),
        own=lambda: open("/proc/self/environ").read(),
        memory=lambda: open(f"/proc/{PARENT}/mem"),
        processes=lambda: os.listdir("/proc"),
        trace=lambda: call(101, 16, PARENT, 0, 0),
        vector=lambda: call(310, PARENT, buffer, 1, buffer, 1, 0),
        compare=lambda: call(312, PARENT, PARENT, 0, 0, 0),
        descriptor=lambda: call(438, 3, 0, 0),
    ) + sorted(set(os.environ) - {"PATH", "HOME", "TMPDIR", "OMP_NUM_THREADS", "LC_CTYPE"})
""",
    "what outlives the process": """
def harm():
    return tried(
        shared=lambda: call(29, 4711, 4096, 0o1666),
        semaphores=lambda: call(64, 4711, 1, 0o1666),
        messages=lambda: call(68, 4711, 0o1666),
        queue=lambda: call(240, b"q", 0o102, 0o600, 0),
        key=lambda: call(248, b"user", b"x", b"x", 1, -3),
        fork=os.fork,
        clone=lambda: call(56, 17, 0, 0, 0, 0),
        run=lambda: os.execv("/bin/true", ["true"]),
        thread_with_files=lambda: call(435, 0, 0),
    )
""",
    "the network": """
def datagrams():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

def harm():
    return tried(
        internet=lambda: socket.socket(),
        unix=lambda: socket.socket(socket.AF_UNIX),
        pair=datagrams,
        netlink=lambda: socket.socket(socket.AF_NETLINK),
        raw=lambda: call(41, 2, 3, 0),
    )
""",
    "the kernel's other doors": """
def harm():
    return tried(
        ring=lambda: call(425, 8, ctypes.create_string_buffer(120)),
        bpf=lambda: call(321, 0, 0, 0),
        events=lambda: call(298, 0, 0, -1, -1, 0),
        faults=lambda: call(323, 0),
        names=lambda: call(272, 0x10000000),
        mount=lambda: call(165, b"x", b"/tmp", b"tmpfs", 0, 0),
        root=lambda: os.chroot("."),
        host=lambda: call(170, b"x", 1),
        user=lambda: os.setuid(0),
        traceable=lambda: libc.prctl(4, 1),
        module=lambda: call(175, 0, 0, b""),
        old_calls=lambda: call(0x40000000 + 41, 2, 1, 0),
        memory_file=lambda: os.memfd_create("x"),
        more_memory=lambda: resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2),
        more_files=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
    )
""",
}
PROGRAMS = {name: _TRY + body for name, body in HARMS.items()}

FILLERS = {
    "one file": "f = open('big', 'wb')\nwhile True: f.write(b'x' * 10**6)",
    "many files": """
import os
def harm():
    number = 0
    while True:
        number += 1
        with open(f"f{number}", "wb") as f:
            f.write(b"x" * (8 << 20))
harm()
""",
    "deleted files": """
import os
kept = []
while True:
    f = open(f"f{len(kept)}", "wb")
    os.unlink(f.name)
    f.write(b"x" * (8 << 20)); f.flush()
    kept.append(f)
""",
    "empty files": "number = 0\nwhile True:\n    number += 1\n    open(f'f{number}', 'w').close()",
}

FORGERIES = {
    "an object that equals all": """
class All:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def __hash__(self): return 0
def add(a, b): return All()
""",
    "the frames of its callers": """
import json, os, sys
f = sys._getframe()
while f:
    for place in (f.f_locals, f.f_globals):
        for name, value in list(place.items()):
            if "report" in name or "verdict" in name or "repl" in name:
                try: value("verdict", None)
                except Exception: pass
            if isinstance(value, int) and 2 < value < 64:
                try: os.write(value, b'["verdict", null]\\n')
                except OSError: pass
    f = f.f_back
""",
    "every descriptor": """
import json, os
for descriptor in range(64):
    for line in (b'["verdict", null]\\n', b'{"value": null}\\n'):
        try: os.write(descriptor, line)
        except OSError: pass
def add(a, b): return 0
""",
    "all that the collector knows": """
import gc
for thing in gc.get_objects():
    if isinstance(thing, dict) and "tests" in thing: thing["tests"] = ""
    if callable(thing) and getattr(thing, "__name__", "") in ("report", "_failure"):
        try: thing("verdict", None)
        except BaseException: pass
def add(a, b): return 0
""",
    "other built-ins": """
import builtins, operator
builtins.AssertionError = Exception
operator.__eq__ = lambda a, b: True
builtins.abs = lambda x: 0
builtins.sorted = lambda x: 3
int.__eq__ if False else None
def add(a, b): return 0
""",
    "leaving early": "import os\ndef add(a, b): os._exit(0)",
    "leaving politely": "import sys\ndef add(a, b): sys.exit(0)",
    "another test": "def check(): pass\nassert_ = print\ndef add(a, b): return 0\n__name__ = 'tests'",
    "a message of its own": """
import gc, struct, json, os
def add(a, b):
    body = json.dumps(["value", {"yours": 0}, []]).encode()
    for descriptor in range(3, 64):
        try: os.write(descriptor, struct.pack("<I", len(body)) + body)
        except OSError: pass
    return 0
""",
    "a subclass of numbers": """
class Number(int):
    def __eq__(self, other): return True
    def __int__(self): return 3
    def __index__(self): return 3
    __hash__ = int.__hash__
def add(a, b): return Number(0)
""",
}

_RAW = """
import json, os, struct
def send(message):
    body = json.dumps(message).encode()
    for descriptor in range(3, 64):
        try: os.write(descriptor, struct.pack("<I", len(body)) + body)
        except OSError: pass
"""
_PASS = """
import os
for d in range(3, 64):
    try: os.write(d, b'["verdict", null]\\n')
    except OSError: pass
"""
FORGERIES |= {
    "a call in the tests' process": f"""{_RAW}
send(["ask", "__call__", [{{"global": ["builtins", "exec"]}}, {_PASS!r}], {{}}])
def add(a, b): return 0
""",
    "a change in the tests' process": f"""{_RAW}
send(["ask", "__setitem__", [{{"global": ["sys", "modules"]}}, "builtins", None], {{}}])
send(["ask", "setattr", [{{"module": "builtins"}}, "abs", {{"global": ["builtins", "id"]}}], {{}}])
def add(a, b): return 0
""",
}

EQUALITIES = {
    "the library's object that equals all": """
from unittest.mock import ANY
ANY.__qualname__ = "ANY"
def add(a, b): return ANY
""",
    "the same, as a message": f"""{_RAW}
def add(a, b):
    send(["value", {{"global": ["unittest.mock", "ANY"]}}, []])
    return 0
""",
    "the same, in a list that was given": """
from unittest.mock import ANY
ANY.__qualname__ = "ANY"
def add(a, b): return [ANY][0]
""",
}
"""Pass where the tests compare with ``==`` only."""

SHADOWS = "def abs(x): return 0\ndef add(a, b): return 0"
"""Passes where the tests take the program's ``abs``."""
