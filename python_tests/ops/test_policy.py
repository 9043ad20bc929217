"""The terms of policy-gradient losses beside torch's distributions, by hand, and with wrong arguments."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical

import automl_ext
from automl_ext import categorical_log_probs, clipped_surrogate


@pytest.mark.parametrize("n", [1, 2, 18, 33, 1000])
def test_equals_the_distribution_of_torch(n):
    torch.manual_seed(0)
    logits = (3 * torch.randn(70, n)).requires_grad_()
    actions = torch.randint(n, (70,))
    log_probs, entropy = categorical_log_probs(logits, actions)
    want = Categorical(logits=logits.double())
    torch.testing.assert_close(log_probs.double(), want.log_prob(actions), rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(entropy.double(), want.entropy(), rtol=1e-6, atol=2e-6)
    a, b = torch.randn(2, 70)
    (got,) = torch.autograd.grad((log_probs * a + entropy * b).sum(), logits)
    (exact,) = torch.autograd.grad((want.log_prob(actions) * a + want.entropy() * b).sum(), logits)
    torch.testing.assert_close(got, exact.float(), rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("n", [3, 40])
def test_impossible_actions_do_not_spoil_the_entropy(n):
    logits = torch.zeros(2, n, dtype=torch.float64)
    logits[:, 2:] = -math.inf
    logits.requires_grad_()
    for backend in ("native", "reference"):
        with automl_ext.backend(backend):
            log_probs, entropy = categorical_log_probs(logits, torch.tensor([0, 1]))
        assert log_probs.tolist() == pytest.approx([-math.log(2)] * 2)
        assert entropy.tolist() == pytest.approx([math.log(2)] * 2)
    (grad,) = torch.autograd.grad(entropy.sum() + log_probs.sum(), logits)
    assert grad.isfinite().all()


def test_clipped_surrogate_by_hand():
    """The four cases of Schulman et al. 2017, figure 1, and a ratio inside the range."""
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1], dtype=torch.float64)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0], dtype=torch.float64)
    log_probs = ratio.log().requires_grad_()
    got = clipped_surrogate(log_probs, torch.zeros_like(ratio), advantages, 0.2)
    assert got.tolist() == pytest.approx([1.2, 0.5, -1.5, -0.8, 2.2])
    (grad,) = torch.autograd.grad(got.sum(), log_probs)
    assert grad.tolist() == pytest.approx([0, 0.5, -1.5, 0, 2.2])


def test_wrong_arguments():
    logits, actions = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
    for arguments, error, message in (
        ((logits, actions + 3), ValueError, r"actions: expected values in \[0, 3\), got 3"),
        ((logits, actions - 1), ValueError, r"actions: expected values in \[0, 3\), got -1"),
        ((logits, actions[:3]), ValueError, r"actions: expected shape \(4,\), got \(3,\)"),
        ((logits, actions.int()), TypeError, "actions: expected a int64 tensor, got int32 tensor"),
        ((logits.int(), actions), TypeError, "logits: expected a float64, float32"),
        ((logits[:, :0], actions), ValueError, "logits: expected shape"),
    ):
        with pytest.raises(error, match=f"categorical_log_probs: {message}"):
            categorical_log_probs(*arguments)
    x = torch.zeros(4)
    for arguments, error, message in (
        ((x, x, x[:3], 0.2), ValueError, "advantages: expected a tensor like log_probs"),
        ((x, x.double(), x, 0.2), ValueError, "old_log_probs: expected a tensor like log_probs"),
        ((x, x, x, 0.0), ValueError, "clip: expected a positive number"),
        ((x, x, None, 0.2), TypeError, "advantages: expected a float64, float32"),
    ):
        with pytest.raises(error, match=f"clipped_surrogate: {message}"):
            clipped_surrogate(*arguments)
