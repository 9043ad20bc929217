"""Export to ONNX: modules that call the ops, and the example of docs/how-to/export.md with exported programs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from docs_tables.text import ROOT
from torch import Tensor, nn

import automl_ext

CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"


class Sparse(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return automl_ext.entmax15(x, -1), automl_ext.sparsemax(x, 0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_onnxruntime_agrees_for_any_size(dtype: torch.dtype) -> None:
    x = 3 * torch.randn(5, 7, dtype=dtype)
    program = torch.onnx.export(Sparse().eval(), (x,), dynamo=True, dynamic_shapes={"x": {0: "n", 1: "classes"}})
    assert program is not None
    masked = 3 * torch.randn(4, 9, dtype=dtype)
    masked[0, :8] = masked[1] = -torch.inf
    for given in (x, masked, torch.randn(3, 40_000, dtype=dtype), torch.randn(1, 40_000, dtype=dtype)):
        for found, expected in zip(program(given), Sparse()(given), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
            assert torch.equal(found == 0, expected == 0)


def test_other_exports_keep_the_compiled_ops() -> None:
    if not automl_ext._native.is_loaded():
        pytest.skip("without the compiled library there are none")
    graph = torch.export.export(Sparse(), (torch.randn(2, 3),)).graph
    targets = {str(node.target) for node in graph.nodes}
    assert {"automl_ext.entmax15.default", "automl_ext.sparsemax.default"} <= targets


@pytest.mark.slow
def test_the_examples_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Here, because the tests of the GPU are collected without gymnasium.
    from automl_ext import rl
    from automl_ext.nas.export.export import export
    from automl_ext.nas.training.retrain import RetrainConfig, retrain
    from automl_ext.rl.export import export_policy

    monkeypatch.chdir(tmp_path)
    retrain(RetrainConfig(subset=60, channels=2, epochs=1, batch_size=18, genotype=CELL), "run")
    export("run", "network.pt2")
    agent = rl.make("a2c", "CartPole-v1", normalize_observations=True, hidden=(8,))
    export_policy(agent, "policy")
    Path("policy/policy.pt2").rename("policy.pt2")
    section = (ROOT / "docs/how-to/export.md").read_text().partition("## ONNX\n")[2].partition("\n## ")[0]
    first, second = re.findall(r"```py\n(.*?)```", section, re.DOTALL)
    names: dict[str, object] = {}
    exec(first, names)
    np.testing.assert_allclose(names["p"], names["model"](names["x"]).numpy(force=True), atol=1e-6)  # type: ignore[operator, attr-defined]
    exec(second, names)
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    for name, given in (("network", images), ("policy", torch.randn(6, 4))):
        session = names["onnxruntime"].InferenceSession(f"{name}.onnx")  # type: ignore[attr-defined]
        found = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        expected = torch.export.load(f"{name}.pt2").module()(given)
        for got, right in zip(found, [expected] if isinstance(expected, Tensor) else expected, strict=True):
            np.testing.assert_allclose(got, right.numpy(force=True), rtol=1e-4, atol=1e-5)
