"""The snippets of docs/how-to/language-models.md: the loops of other packages and our calls give the same numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from paths import ROOT
from torch import Tensor

PAGE = (ROOT / "docs/how-to/language-models.md").read_text()
SNIPPETS = {
    (kind, name): code
    for kind, name, code in re.findall(r"<!-- (before|after): ([\w-]+) -->\n\n```python\n(.*?)```", PAGE, re.DOTALL)
}
B, T, VOCABULARY = 6, 40, 50


def run(kind: str, name: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run a snippet with these names defined. Return all names afterwards."""
    names = {"torch": torch, **names}
    exec(SNIPPETS[kind, name], names)
    return names


def data(holes: bool) -> dict[str, Any]:
    """Answers of several lengths, with masked tokens after them, and with ``holes`` also before and between theirs."""
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, B, T, generator=generator, dtype=torch.float64)
    mask = torch.arange(T) < torch.tensor([40, 39, 25, 12, 1, 40])[:, None]
    if holes:
        mask &= torch.rand(B, T, generator=generator) < 0.5
        mask[5, 10:30] = False  # a long tool output
    return {"rewards": rewards, "values": values, "response_mask": mask.double(), "gamma": 0.9, "lam": 0.8}


def assert_same(before: dict[str, Any], after: dict[str, Any], names: list[str], where: Tensor | None = None) -> None:
    for name in names:
        x, y = before[name], after[name]
        torch.testing.assert_close(*((x, y) if where is None else (x[where], y[where])))


@pytest.mark.parametrize("holes", [False, True])
def test_advantages_of_verl(holes: bool) -> None:
    given = data(holes)
    before, after = (run(kind, "verl-gae", given) for kind in ("before", "after"))
    on = given["response_mask"].bool()
    assert_same(before, after, ["advantages", "returns"], on)
    assert (after["advantages"][~on] == 0).all()
    assert torch.equal(after["returns"][~on], given["values"][~on])


def test_advantages_of_trl_and_openrlhf() -> None:
    for holes in (False, True):
        given = data(holes)
        assert_same(*(run(kind, "trl-gae", given) for kind in ("before", "after")), ["advantages", "returns"])
    padded = data(holes=False)
    on = padded["response_mask"].bool()
    assert_same(run("before", "trl-gae", padded), run("after", "verl-gae", padded), ["advantages", "returns"], on)


@pytest.mark.parametrize("holes", [False, True])
def test_returns_without_a_critic(holes: bool) -> None:
    given = data(holes)
    assert_same(*(run(kind, "returns", given) for kind in ("before", "after")), ["returns"])


def test_log_probabilities() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(B, T, VOCABULARY, generator=generator, dtype=torch.float64)
    tokens = torch.randint(VOCABULARY, (B, T), generator=generator)
    gradients = []
    for kind in ("before", "after"):
        x = logits.clone().requires_grad_()
        result = run(kind, "log-probs", {"logits": x, "tokens": tokens, "temperature": 0.7})
        (result["log_probs"].sum() + (result["entropy"] ** 2).sum()).backward()
        gradients.append({"log_probs": result["log_probs"], "entropy": result["entropy"], "gradient": x.grad})
    assert_same(*gradients, ["log_probs", "entropy", "gradient"])


def test_loss() -> None:
    given = data(holes=True) | {"clip": 0.2, "value_clip": 0.3, "vf_coef": 0.6, "ent_coef": 0.01}
    generator = torch.Generator().manual_seed(2)
    names = "log_probs", "old_log_probs", "entropy", "new_values", "advantages", "returns"
    given |= dict(zip(names, torch.randn(6, B, T, generator=generator, dtype=torch.float64), strict=True))
    results = []
    for kind in ("before", "after"):
        leaves = {name: given[name].clone().requires_grad_() for name in ("log_probs", "entropy", "new_values")}
        result = run(kind, "loss", given | leaves)
        result["loss"].backward()
        results.append(result | {f"gradient of {name}": x.grad for name, x in leaves.items()})
    gradients = [name for name in results[0] if name.startswith("gradient of ")]
    assert len(gradients) == 3
    assert_same(*results, ["loss", "policy_loss", "value_loss", *gradients])
