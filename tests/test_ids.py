"""Ids: nobody is given what somebody else has."""

import os
from concurrent.futures import ThreadPoolExecutor

from app.ids import new_id


def test_no_id_is_given_twice_however_many_threads_ask() -> None:
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda _: new_id(), range(20_000)))
    assert len(set(given)) == len(given)
    assert {len(name) for name in given} == {32}
    assert all(set(name) <= set("0123456789abcdef") for name in given)


def test_a_forked_process_draws_its_own() -> None:
    new_id()  # some are drawn and wait
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 32).decode() not in {new_id() for _ in range(600)}
