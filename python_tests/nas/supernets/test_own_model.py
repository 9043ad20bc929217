"""GDAS over a custom model with GumbelMixedOp, as in the README."""

from __future__ import annotations

import torch
from torch import nn

from automl_ext.ops.modules import GumbelMixedOp


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Make signals whose class is the sign of their slope, which needs a convolution of width 3, not 1."""
    labels = torch.randint(2, (count, 64))
    start = torch.rand(count, 64, 1) * 6
    phase = start + torch.arange(12) * (2.0 * labels - 1).unsqueeze(-1)
    signals = (phase % 6) + 0.1 * torch.randn(count, 64, 12)
    return list(zip(signals.unsqueeze(2), labels, strict=True))


def test_gdas_over_a_custom_model() -> None:
    torch.manual_seed(0)
    train, valid = batches(200), batches(200)
    loss = nn.CrossEntropyLoss()

    edge = GumbelMixedOp([nn.Conv1d(8, 8, 1), nn.Conv1d(8, 8, 3, padding=1), nn.Identity()])
    model = nn.Sequential(nn.Conv1d(1, 8, 1), edge, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 2))
    weights = [p for p in model.parameters() if p is not edge.alpha]
    w_optimizer, a_optimizer = torch.optim.Adam(weights, 0.01), torch.optim.Adam([edge.alpha], 0.03)
    for step, ((x, y), (x_valid, y_valid)) in enumerate(zip(train, valid, strict=True)):
        edge.tau = 5 - 4.9 * step / len(train)
        for optimizer, images, labels in [(w_optimizer, x, y), (a_optimizer, x_valid, y_valid)]:
            model.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()

    assert edge.choice == 1
    model.eval()
    x, y = batches(1)[0]
    assert (model(x).argmax(-1) == y).float().mean() > 0.8
