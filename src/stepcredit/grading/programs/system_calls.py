"""The system calls that a program under test may make, as a seccomp filter; all others fail with EPERM."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence

# Name, and its number on x86_64 and on aarch64. Not there: sockets but pairs, new processes, signals to
# anyone, priorities and limits of others, owners, modes, times and attributes of files, shared memory and
# messages by key, mounts, namespaces, and whatever the kernel gains.
_ALLOWED = """
    read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev
    296 70; preadv2 327 286; pwritev2 328 287; open 2 -; openat 257 56; creat 85 -; close 3 57; close_range
    436 436; stat 4 -; lstat 6 -; fstat 5 80; newfstatat 262 79; statx 332 291; statfs 137 43; fstatfs 138
    44; access 21 -; faccessat 269 48; faccessat2 439 439; lseek 8 62; poll 7 -; ppoll 271 73; select 23 -;
    pselect6 270 72; mmap 9 222; mprotect 10 226; munmap 11 215; mremap 25 216; madvise 28 233; msync 26
    227; mincore 27 232; brk 12 214; rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigreturn 15 139;
    rt_sigpending 127 136; rt_sigtimedwait 128 137; rt_sigsuspend 130 133; sigaltstack 131 132;
    restart_syscall 219 128; pause 34 -; pipe 22 -; pipe2 293 59; dup 32 23; dup2 33 -; dup3 292 24;
    eventfd2 290 19; epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21; epoll_wait 232 -;
    epoll_pwait 281 22; epoll_pwait2 441 441; timerfd_create 283 85; timerfd_settime 286 86;
    timerfd_gettime 287 87; signalfd4 289 74; nanosleep 35 101; clock_nanosleep 230 115; clock_gettime 228
    113; clock_getres 229 114; gettimeofday 96 169; time 201 -; times 100 153; getrusage 98 165; getitimer
    36 102; setitimer 38 103; alarm 37 -; sysinfo 99 179; uname 63 160; getrandom 318 278; getcpu 309 168;
    getpid 39 172; getppid 110 173; gettid 186 178; getuid 102 174; geteuid 107 175; getgid 104 176;
    getegid 108 177; getresuid 118 148; getresgid 120 150; getgroups 115 158; getpgrp 111 -; getpgid 121
    155; getsid 124 156; getpriority 140 141; getrlimit 97 163; setrlimit 160 164; sched_yield 24 124;
    sched_getaffinity 204 123; sched_getparam 143 121; sched_getscheduler 145 120; sched_get_priority_max
    146 125; sched_get_priority_min 147 126; membarrier 324 283; futex 202 98; futex_waitv 449 449;
    set_robust_list 273 99; rseq 334 293; set_tid_address 218 96; arch_prctl 158 -; exit 60 93; exit_group
    231 94; getcwd 79 17; chdir 80 49; fchdir 81 50; rename 82 -; renameat 264 38; renameat2 316 276; mkdir
    83 -; mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35; symlink 88 -; symlinkat 266 36; link 86
    -; linkat 265 37; readlink 89 -; readlinkat 267 78; truncate 76 45; ftruncate 77 46; fallocate 285 47;
    fsync 74 82; fdatasync 75 83; sync_file_range 277 84; flock 73 32; getdents 78 -; getdents64 217 61;
    umask 95 166; fadvise64 221 223; copy_file_range 326 285; sendfile 40 71; sendto 44 206; recvfrom 45
    207; sendmsg 46 211; recvmsg 47 212; shutdown 48 210; getsockopt 55 209;
"""
_ARCHITECTURES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2)}  # audit name, column in the table
_CHECKED = {  # as above: those of which only some arguments are allowed
    "clone": (56, 220),
    "clone3": (435, 435),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "socketpair": (53, 199),
}
_THREAD = 0x10000
_FCNTL = (*range(8), 36, 37, 38, 1030, 1031, 1032)  # not F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, how large, how much to read
_PRCTL = (15, 16, 0x53564D41)  # names of threads and of memory
_UNIX, _STREAM, _SOCKET_KIND = 1, 1, 0xF

_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # EPERM, ENOSYS
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in what the filter sees
_OTHER_ABI = 0x40000000
_SET_SECCOMP, _SECCOMP_FILTER, _NO_NEW_PRIVILEGES = 22, 2, 38

Instruction = tuple[int, int, int, int]


def has_filter() -> bool:
    """Whether this system can filter system calls, and the table knows its numbers."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
        return False
    actions = "/proc/sys/kernel/seccomp/actions_avail"
    return os.path.exists(actions) or os.path.exists("/proc/self/seccomp")


def filter_system_calls() -> None:
    """Filter the system calls of this process for good; refused ones fail with EPERM.

    Raises:
        OSError: The kernel did not take the filter.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot give up privileges")
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _program(platform.machine()))
    instructions = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))
    if libc.prctl(_SET_SECCOMP, _SECCOMP_FILTER, ctypes.create_string_buffer(header, len(header)), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot filter system calls")


def _program(machine: str) -> list[Instruction]:
    architecture, column = _ARCHITECTURES[machine]
    rows = [row.split() for row in _ALLOWED.split(";") if row.strip()]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _OTHER_ABI),
        (_RETURN, 0, 0, _REFUSE),
    ]
    for row in rows:
        if row[column] != "-":
            program += [(_EQUAL, 0, 1, int(row[column])), (_RETURN, 0, 0, _ALLOW)]
    numbers = {name: pair[column - 1] for name, pair in _CHECKED.items()}
    program += _if(numbers["clone3"], [(_RETURN, 0, 0, _UNKNOWN)])  # its flags are out of sight: use clone
    program += _if(
        numbers["clone"],
        [_load(0), (_ANY_BIT, 0, 1, _THREAD), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)],
    )
    for name, argument, values in (("fcntl", 1, _FCNTL), ("ioctl", 1, _IOCTL), ("prctl", 0, _PRCTL)):
        program += _if(numbers[name], _one_of(argument, values))
    program += _if(numbers["prlimit64"], _one_of(0, (0,)))  # of this process itself
    kind = [_load(1), (_AND, 0, 0, _SOCKET_KIND), (_EQUAL, 0, 1, _STREAM), (_RETURN, 0, 0, _ALLOW)]
    program += _if(
        numbers["socketpair"], [_load(0), (_EQUAL, 0, len(kind), _UNIX), *kind, (_RETURN, 0, 0, _REFUSE)]
    )
    return [*program, (_RETURN, 0, 0, _REFUSE)]


def _if(number: int, block: Sequence[Instruction]) -> list[Instruction]:
    """The block, which must return, for one system call only."""
    return [(_EQUAL, 0, len(block), number), *block]


def _load(argument: int) -> Instruction:
    """Load the lower half of an argument: all of it, of those that are C's int."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)


def _one_of(argument: int, values: Sequence[int]) -> list[Instruction]:
    block = [_load(argument)]
    for value in values:
        block += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*block, (_RETURN, 0, 0, _REFUSE)]
