"""Takes rights from the calling process for good: all files but those named, the network, other processes.

Three mechanisms of Linux, none of which needs a privilege: Landlock for files, a seccomp filter for system calls, and
no capabilities for who came as root. Covered: reading and writing elsewhere, sockets, new processes, signals, others'
memory, raising limits. Not covered: faults of the kernel, what can be timed, and whether a file is there and how large.
Limits of memory and time are the caller's, set before. Imports the standard library alone: children start by it.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from typing import Final

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # on every architecture
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_GET_SECCOMP, _FILTER = 38, 22, 21, 2
_READ: Final = 1 << 2 | 1 << 3  # of a file, of a folder
# Write, remove and make regular files, truncate. No folders: one in another ten thousand times is hard to be rid of.
_WRITE: Final = 1 << 1 | 1 << 5 | 1 << 8 | 1 << 14
_OF_A_FILE: Final = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
_RIGHTS: Final = ((1, 13), (2, 14), (3, 15), (5, 16))  # from which version of Landlock on how many rights are known
_TCP, _SCOPES = 0b11, 0b11  # binding and connecting (version 4); abstract sockets and signals (version 6)

_KILL, _ALLOW, _ERRNO = 0x8000_0000, 0x7FFF_0000, 0x0005_0000
_CLONE_THREAD: Final = 0x0001_0000
_CLONE3: Final = 435
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # classic BPF: ld [k], jeq, jset, ret
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # in seccomp_data; of an argument the low half is read first

# What an interpreter with threads and files needs, with its numbers on x86_64 and aarch64, -1 where it has none. A call
# that is not here, one of a later kernel too, is refused.
# fmt: off
_CALLS: Final = {
    "read": (0, 63), "write": (1, 64), "open": (2, -1), "close": (3, 57), "stat": (4, -1), "fstat": (5, 80),
    "lstat": (6, -1), "poll": (7, -1), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "ioctl": (16, 29), "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "access": (21, -1), "pipe": (22, -1), "select": (23, -1), "sched_yield": (24, 124), "mremap": (25, 216),
    "msync": (26, 227), "mincore": (27, 232), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, -1),
    "nanosleep": (35, 101), "getpid": (39, 172), "socketpair": (53, 199), "exit": (60, 93), "uname": (63, 160),
    "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46), "getdents": (78, -1),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, -1),
    "unlink": (87, -1), "readlink": (89, -1), "umask": (95, 166), "gettimeofday": (96, 169),
    "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174),
    "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173), "getpgrp": (111, -1),
    "getgroups": (115, 158), "getpgid": (121, 155), "getsid": (124, 156), "sigaltstack": (131, 132),
    "statfs": (137, 43), "fstatfs": (138, 44), "prctl": (157, 167), "arch_prctl": (158, -1), "gettid": (186, 178),
    "time": (201, -1), "futex": (202, 98), "sched_getaffinity": (204, 123), "epoll_create": (213, -1),
    "getdents64": (217, 61), "set_tid_address": (218, 96), "fadvise64": (221, 223), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94), "epoll_wait": (232, -1),
    "epoll_ctl": (233, 21), "openat": (257, 56), "newfstatat": (262, 79), "unlinkat": (263, 35),
    "renameat": (264, 38), "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "epoll_pwait": (281, 22), "fallocate": (285, 47),
    "eventfd2": (290, 19), "epoll_create1": (291, 20), "dup3": (292, 24), "pipe2": (293, 59), "preadv": (295, 69),
    "pwritev": (296, 70), "getcpu": (309, 168), "renameat2": (316, 276), "getrandom": (318, 278),
    "membarrier": (324, 283), "copy_file_range": (326, 285), "preadv2": (327, 286), "pwritev2": (328, 287),
    "statx": (332, 291), "rseq": (334, 293), "close_range": (436, 436), "faccessat2": (439, 439),
    "epoll_pwait2": (441, 441), "futex_waitv": (449, 449),
}
# fmt: on
_MACHINES: Final = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}  # place in the pairs, AUDIT_ARCH
_CLONE: Final = (56, 220)
_FCNTL: Final = (72, 25)
_OWNERS: Final = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to whatever process, by way of a pipe


class CannotConfine(OSError):
    """The kernel lacks what this needs, or refused it."""


def lacking() -> str:
    """What this machine lacks for it, in words; empty where nothing does."""
    if platform.system() != "Linux":
        return f"{platform.system()} has no Landlock and no seccomp; Linux has"
    if platform.machine() not in _MACHINES:
        return f"the system calls of {platform.machine()} are not known here; those of {' and '.join(_MACHINES)} are"
    if _landlock_version() < 1:
        return "the kernel has no Landlock (Linux 5.13 and later have, where it is not turned off)"
    if _libc().prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        return "the kernel has no seccomp filters"
    return ""


def confine(*, readable: Iterable[str], writable: Iterable[str]) -> None:
    """Leave this process what lies under these paths, and threads. Paths that are not there are passed over.

    Raises CannotConfine, after which some of it may hold already: the process has to end.
    """
    if why := lacking():
        raise CannotConfine(errno.ENOSYS, why)
    libc = _libc()
    _drop_capabilities(libc)
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _keep_to_files(libc, dict.fromkeys(readable, _READ) | dict.fromkeys(writable, _READ | _WRITE))
    _keep_to_calls(libc)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise CannotConfine(ctypes.get_errno(), f"the kernel refused {what}")
    return result


def _landlock_version() -> int:
    return int(_libc().syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    # struct __user_cap_header {version 3, pid 0 is oneself}, then two sets of effective, permitted, inheritable.
    _checked(libc.capset(struct.pack("Ii", 0x2008_0522, 0), struct.pack("6I", *[0] * 6)), "to drop capabilities")


def _keep_to_files(libc: ctypes.CDLL, allowed: dict[str, int]) -> None:
    version = _landlock_version()
    handled = (1 << max(bits for since, bits in _RIGHTS if since <= version)) - 1
    attributes = struct.pack("QQQ", handled, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _checked(libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0), "a set of Landlock rules")
    for path, rights in allowed.items():
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        known = handled if os.path.isdir(path) else handled & _OF_A_FILE
        beneath = struct.pack("=Qi", rights & known, place)
        _checked(libc.syscall(_LANDLOCK_ADD, rules, 1, beneath, 0), f"a Landlock rule for {path}")
        os.close(place)
    _checked(libc.syscall(_LANDLOCK_RESTRICT, rules, 0), "to keep to Landlock rules")
    os.close(rules)


def _keep_to_calls(libc: ctypes.CDLL) -> None:
    program = b"".join(struct.pack("HBBI", *each) for each in _filter(*_MACHINES[platform.machine()]))
    held = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    _checked(libc.prctl(_PR_SET_SECCOMP, _FILTER, described, 0, 0), "a filter of system calls")


def _filter(machine: int, architecture: int) -> list[tuple[int, int, int, int]]:
    """As classic BPF: code, how many instructions to leap over if true and if false, value."""
    calls = sorted({numbers[machine] for numbers in _CALLS.values()} - {-1})
    count = len(calls)
    owners = [(_EQUAL, len(_OWNERS) - index + count, 0, command) for index, command in enumerate(_OWNERS)]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 0, 1, _CLONE3),  # its flags lie in memory, which a filter cannot read: the C library then uses clone
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 4, _CLONE[machine]),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_EQUAL, 0, 2 + len(owners), _FCNTL[machine]),
        (_LOAD, 0, 0, _ARGUMENTS + 8),
        *owners,
        (_RETURN, 0, 0, _ALLOW),
        *((_EQUAL, count - index, 0, call) for index, call in enumerate(calls)),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
