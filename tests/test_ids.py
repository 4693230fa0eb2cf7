"""Ids: nobody is given what somebody else has."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from app.ids import new_id

FORKS = """
import os
from app.ids import new_id
new_id()  # some are drawn and wait
child = os.fork()
if child:
    os.waitpid(child, 0)  # so that neither writes into the other's lines
print("\\n".join(new_id() for _ in range(300)))
"""


def test_a10_no_id_is_given_twice_however_many_threads_ask() -> None:
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda _: new_id(), range(20_000)))
    assert len(set(given)) == len(given)
    assert {len(name) for name in given} == {32}
    assert all(set(name) <= set("0123456789abcdef") for name in given)


def test_a10_a_forked_process_draws_its_own() -> None:
    told = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True).stdout.split()
    assert len(told) == len(set(told)) == 600
