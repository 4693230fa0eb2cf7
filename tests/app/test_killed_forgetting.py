"""Who is killed while it forgets leaves it to the next call, which comes to the same end."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.app.killed_forgetting import STEPS
from tests.app.test_erasure import held


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["erasure", "retention"])
async def test_p05_what_is_killed_after_a_step_is_finished_by_the_next_call(kind: str, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.app.killed_forgetting", str(tmp_path), kind)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    ends = [json.loads(line) for line in told.splitlines()]
    assert ends == [{"step": name, "first": -9, "then": 0} for name in STEPS[kind]]
    assert "canary" in held("", tmp_path / "lived")
    for name in STEPS[kind]:
        assert "canary" not in held("", tmp_path / name), name
