"""Every node of every graph is a station, so that no waterfall has a gap."""

import pytest

from graphs import catalog


@pytest.mark.parametrize("name", sorted(catalog.CATALOG))
def test_every_node_is_a_station(name: str) -> None:
    nodes = catalog.build(name).nodes
    wrapped = {node: spec.runnable.afunc.__qualname__ for node, spec in nodes.items()}  # type: ignore[attr-defined]
    assert wrapped
    assert set(wrapped.values()) == {"station.<locals>.timed"}
