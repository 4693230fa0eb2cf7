"""The import contracts bite: in a copy of the tree, every wrong import that they forbid is planted, and named."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]


@dataclass(frozen=True)
class Plant:
    """An import that contract `contract` forbids."""

    contract: str
    source: str
    target: str

    @property
    def home(self) -> Path:
        """The file that gets the import, from the tree's root: the module itself, or a new one in the package."""
        path = Path(*self.source.split("."))
        return path / "planted.py" if (ROOT / path).is_dir() else path.with_suffix(".py")

    @property
    def importer(self) -> str:
        return ".".join(self.home.with_suffix("").parts)

    def __str__(self) -> str:
        return f"{self.importer} -> {self.target}"


def plants() -> Iterator[Plant]:
    """One for each pair of neighbouring layers and services, and for each source with each of what it may not know."""
    for contract in SETTINGS["contracts"]:
        name = contract["name"]
        match contract["type"]:
            case "layers":
                layers = [[module.strip() for module in layer.split("|")] for layer in contract["layers"]]
                for above, below in pairwise(layers):
                    yield from (Plant(name, module, above[0]) for module in below)
                yield from (Plant(name, layer[0], layer[1]) for layer in layers if len(layer) > 1)
            case "independence":
                modules = contract["modules"]
                yield from (Plant(name, a, b) for a, b in pairwise([*modules, modules[0]]))
            case "forbidden":
                for source in contract["source_modules"]:
                    yield from (Plant(name, source, target) for target in contract["forbidden_modules"])
            case other:
                raise AssertionError(f"no plant is known for contracts of type {other}")


def lint(tree: Path, *options: str) -> str:
    # It looks for packages in the folder that it is run in first.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo", *options]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    for package in SETTINGS["root_packages"]:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "handbook"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


@pytest.fixture(scope="module")
def report(copy: Path) -> str:
    """What the linter says of the copy with everything planted; before that it must have nothing to say."""
    assert "0 broken" in lint(copy)
    for plant in plants():
        with (copy / plant.home).open("a", encoding="utf-8") as file:
            file.write(f"\nimport {plant.target}\n")
    return " ".join(lint(copy).split())


@pytest.mark.parametrize("plant", tuple(plants()), ids=str)
def test_a_wrong_import_breaks_its_contract(plant: Plant, report: str) -> None:
    assert f"{plant.contract} BROKEN" in report
    assert str(plant) in report


def test_every_service_is_in_the_contract_of_independence() -> None:
    named: Any = next(contract for contract in SETTINGS["contracts"] if contract["type"] == "independence")
    folders = {f"app.services.{path.parent.name}" for path in ROOT.glob("app/services/*/__init__.py")}
    assert folders == set(named["modules"])
