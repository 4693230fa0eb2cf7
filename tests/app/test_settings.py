"""What the documents say about settings, and what there is."""

import re
from pathlib import Path

import pytest

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "app/handbook").glob("*.md")))
INTERNAL = {"reads_default_config"}
VARIABLES = {f"PILOTHOUSE_{name.upper()}" for name in Settings.model_fields if name not in INTERNAL}


def named(page: Path) -> set[str]:
    return set(re.findall(r"\bPILOTHOUSE_[A-Z][A-Z0-9_]*[A-Z0-9]\b", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_variable_that_a_page_names_exists(page: Path) -> None:
    assert named(page) - VARIABLES == set()


def test_every_variable_is_in_the_handbook() -> None:
    assert VARIABLES - set().union(*map(named, PAGES[1:])) == set()
