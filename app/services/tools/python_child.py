"""The process that runs a program which a model wrote: limits first, then all rights but a folder's, then the program.

`_start` gives it the folder and its limits. It reads the program from stdin, which is empty from then on. What the
program prints, its errors too, goes out on one stream.
"""

import os
import resource
import sys
import sysconfig
import traceback

from app.confined import confine

MAX_FILES = 64
MAX_FILE_BYTES = 16 << 20
# Beside the standard library: what its modules look for elsewhere, none of which tells of this machine's work.
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_READABLE = (*_LIBRARIES, "/usr/share/zoneinfo", "/etc/localtime", "/dev/null", "/dev/zero", "/dev/urandom")


def main() -> None:
    """Never returns: ends the process with 0, or with 1 where the program failed. Its arguments are the folder, the
    seconds of computing and the bytes of memory that the program may have."""
    folder, cpu_s, memory_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    program = sys.stdin.buffer.read().decode("utf-8", "replace")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    _limit(cpu_s, memory_bytes)
    paths = sysconfig.get_paths()
    libraries = {paths["stdlib"], paths["platstdlib"]}
    # With its own modules alone: neither ours nor what is installed beside them.
    sys.path[:] = [path for path in sys.path if any(path.startswith(each) for each in libraries)]
    sys.argv[:] = ["program.py"]
    confine(readable=(*libraries, *_READABLE), writable=(folder,))
    os._exit(_run(program))


def _limit(cpu_s: int, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run(program: str) -> int:
    code = 0
    try:
        exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - what this is for
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException as error:
        # The edge of a process: whatever ended the program is its output, without our own frame.
        behind = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, behind)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code & 0xFF
