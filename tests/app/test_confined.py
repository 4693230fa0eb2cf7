"""Where a process cannot be kept in, that is said, and nothing is half kept."""

import subprocess
import sys

import pytest

from app import confined


@pytest.mark.parametrize(
    ("system", "machine", "why"),
    [("Darwin", "arm64", "no Landlock"), ("Linux", "riscv64", "system calls of riscv64")],
)
def test_a_machine_that_lacks_something_says_what(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, why: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert why in confined.lacking()
    with pytest.raises(confined.CannotConfine, match=why):
        confined.confine(readable=(), writable=())


def test_a_kernel_without_landlock_is_told_from_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "_landlock_version", lambda: -1)
    assert "Landlock" in confined.lacking()


@pytest.mark.parametrize("machine", [0, 1])
def test_every_jump_of_the_filter_ends_inside_it_and_no_number_is_named_twice(machine: int) -> None:
    program = confined._filter(machine, 1)
    ends = [place + 1 + max(true, false) for place, (_, true, false, _) in enumerate(program[:-1])]
    assert max(ends) < len(program)
    assert max(max(true, false) for _, true, false, _ in program) < 256
    numbers = [pair[machine] for pair in confined._CALLS.values() if pair[machine] >= 0]
    assert len(numbers) == len(set(numbers))
    # Sockets, programs, processes and signals, on x86_64 and on aarch64.
    refused = (
        {41, 42, 49, 57, 58, 59, 62, 101, 200, 234, 302, 322, 425},
        {117, 129, 130, 131, 198, 200, 203, 221, 261, 425},
    )
    assert not refused[machine] & set(numbers)


@pytest.mark.skipif(bool(confined.lacking()), reason="no process can be kept in here")
def test_threads_that_begin_later_are_kept_in_as_well() -> None:
    code = (
        "import sys, threading; sys.path.insert(0, sys.argv[1]); from app.confined import confine\n"
        "confine(readable=(), writable=())\n"
        "def read():\n"
        "    try: open('/etc/passwd'); print('read')\n"
        "    except PermissionError: print('kept')\n"
        "thread = threading.Thread(target=read); thread.start(); thread.join()\n"
    )
    root = str(confined.__file__).rpartition("/app/")[0]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True)
    assert done.stdout == "kept\n"
