"""A small trained model whose weights are a JSON file: standardised features, at most one hidden layer, a sigmoid.

numpy only; the training scripts in `benchmarks/` write the files, with their provenance inside.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scorer:
    """`layers` are (weights, bias) with tanh between; the last one has a single output."""

    features: tuple[str, ...]
    mean: Array
    scale: Array
    layers: tuple[tuple[Array, Array], ...]

    @classmethod
    def parse(cls, model: dict[str, Any], features: tuple[str, ...]) -> "Scorer":
        """From a part of a weights file. Raises ValueError if it was trained for other features than the code gives."""
        if tuple(model["features"]) != features:
            raise ValueError(f"the weights are for features {model['features']}, the code computes {list(features)}")
        layers = tuple((np.array(layer["weights"]), np.array(layer["bias"])) for layer in model["layers"])
        return cls(features, np.array(model["mean"]), np.array(model["scale"]), layers)

    def logit(self, rows: Array) -> Array:
        """Log odds, shape (n,), of rows of shape (n, features)."""
        values = (rows - self.mean) / self.scale
        for weights, bias in self.layers[:-1]:
            values = np.tanh(values @ weights + bias)
        weights, bias = self.layers[-1]
        return np.asarray((values @ weights + bias)[:, 0])

    def probability(self, rows: Array) -> Array:
        """In (0, 1), shape (n,)."""
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(self.logit(rows), -40.0, 40.0))))


def read_weights(path: Path) -> dict[str, Any]:
    """A weights file as written by the training scripts."""
    weights: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return weights
