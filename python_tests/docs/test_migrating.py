"""The snippets of docs/how-to/migrating.md: what they compute before and after the migration is the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from paths import ROOT
from torch import Tensor

from automl_ext import gumbel_softmax

PAGE = (ROOT / "docs/how-to/migrating.md").read_text()
SNIPPETS = {
    (kind, name): code
    for kind, name, code in re.findall(r"<!-- (before|after): ([\w-]+) -->\n\n```python\n(.*?)```", PAGE, re.DOTALL)
}
GAMMA, LAMBDA, T, B = 0.9, 0.8, 40, 6


def run(kind: str, name: str, **names: Any) -> dict[str, Any]:
    """Run a snippet with these names defined. Return all names afterwards."""
    names = {"torch": torch, "gamma": GAMMA, "gae_lambda": LAMBDA, **names}
    exec(SNIPPETS[kind, name], names)
    return names


@pytest.fixture
def rollout() -> dict[str, Tensor]:
    """A rollout with terminated and truncated episodes, and the last step of some environments an end."""
    generator = torch.Generator().manual_seed(0)
    rewards, values, final_values = torch.randn(3, T, B, generator=generator, dtype=torch.float64)
    ends = torch.rand(T, B, generator=generator) < 0.2
    truncated = ends & (torch.rand(T, B, generator=generator) < 0.5)
    ends[-1], truncated[-1] = torch.arange(B) % 3 > 0, torch.arange(B) % 3 > 1
    last_values = torch.randn(B, generator=generator, dtype=torch.float64)
    assert truncated[:-1].any()
    assert (ends & ~truncated)[:-1].any()
    return {
        "paid_rewards": rewards,
        "values": values,
        "last_values": last_values,
        "final_values": final_values,
        "terminated": ends & ~truncated,
        "truncated": truncated,
    }


def peers_names(rollout: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the rollout as Stable-Baselines3 and CleanRL store it: one flag, at the step after the end."""
    ends = (rollout["terminated"] | rollout["truncated"]).double()
    starts = torch.cat([torch.ones(1, B, dtype=torch.float64), ends[:-1]])
    bootstrap = GAMMA * rollout["final_values"] * rollout["truncated"]
    return {
        "rewards": rollout["paid_rewards"] + bootstrap,
        "values": rollout["values"],
        "episode_starts": starts,
        "dones": ends[-1],
        "last_values": rollout["last_values"],
    }


def assert_equal_results(*results: dict[str, Any], names: tuple[str, ...] = ("advantages", "returns")) -> None:
    for name in names:
        assert results[0][name].abs().max() > 0.1
        for other in results[1:]:
            torch.testing.assert_close(other[name], results[0][name], rtol=1e-12, atol=1e-12)


def test_stable_baselines3(rollout: dict[str, Tensor]) -> None:
    theirs = run("before", "stable-baselines3", **peers_names(rollout))
    ours = run("after", "stable-baselines3", **peers_names(rollout))
    own_loop = run("after", "own-loop", gae=ours["gae"], **rollout)
    assert_equal_results(theirs, ours, own_loop)


def test_the_page_has_stable_baselines3s_formula(rollout: dict[str, Tensor]) -> None:
    """Their own buffer, where the package is installed."""
    buffers = pytest.importorskip("stable_baselines3.common.buffers", reason="stable_baselines3 is not installed")
    from gymnasium.spaces import Box

    names = peers_names(rollout)
    buffer = buffers.RolloutBuffer(T, Box(-1, 1, (1,)), Box(-1, 1, (1,)), "cpu", LAMBDA, GAMMA, B)
    for name in ("rewards", "values", "episode_starts"):
        setattr(buffer, name, names[name].float().numpy())
    buffer.compute_returns_and_advantage(names["last_values"].float(), names["dones"].numpy())
    theirs = run("before", "stable-baselines3", **names)
    for name in ("advantages", "returns"):
        found = torch.from_numpy(getattr(buffer, name)).double()
        torch.testing.assert_close(found, theirs[name], rtol=1e-4, atol=1e-4)


def test_returns(rollout: dict[str, Tensor]) -> None:
    names = run("after", "own-loop", gae=run("after", "cleanrl", **cleanrl_names(rollout))["gae"], **rollout)
    own = {key: names[key] for key in ("paid_rewards", "values", "next_values", "terminated", "truncated", "gae")}
    assert_equal_results(
        run("before", "returns", **own), run("after", "returns", **own), names=("monte_carlo", "td_lambda")
    )


def cleanrl_names(rollout: dict[str, Tensor]) -> dict[str, Tensor]:
    names = peers_names(rollout)
    renamed = {"episode_starts": "dones", "dones": "next_done", "last_values": "next_value"}
    return {renamed.get(name, name): value for name, value in names.items()}


def test_cleanrl(rollout: dict[str, Tensor]) -> None:
    names = cleanrl_names(rollout)
    assert_equal_results(run("before", "cleanrl", **names), run("after", "cleanrl", **names))


def test_entmax() -> None:
    scores, labels = torch.randn(20, 11), torch.randint(11, (20,))
    theirs, ours = (run(kind, "entmax", scores=scores, labels=labels) for kind in ("before", "after"))
    assert theirs["entmax"] is not ours["entmax"]
    assert (ours["p"] == 0).any()
    torch.testing.assert_close(ours["p"], theirs["p"])
    torch.testing.assert_close(ours["loss"], theirs["loss"])


def test_gumbel_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([1.0, 0.0, -1.0, 0.5]).expand(40_000, -1)
    probabilities = torch.softmax(logits[0], -1)
    for kind in ("before", "after"):
        sample = run(kind, "gumbel-softmax", logits=logits)["sample"]
        assert sample.unique().tolist() == [0, 1]
        frequencies = sample.mean(0)
        bound = 4 * (probabilities * (1 - probabilities) / len(logits)).sqrt()
        assert ((frequencies - probabilities).abs() < bound).all()


def test_gumbel_softmax_is_torchs_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the noise of ours in place of torch's, the soft samples are equal."""
    logits = torch.randn(50, 9, dtype=torch.float64)
    noise = gumbel_softmax(torch.zeros_like(logits), tau=1.0, seed=3).log()  # g, up to a constant per row
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_((-noise).exp()))  # F takes −log of it
    torch.testing.assert_close(gumbel_softmax(logits, tau=0.7, seed=3), F.gumbel_softmax(logits, tau=0.7))


def test_every_snippet_is_tested() -> None:
    assert len(SNIPPETS) == len(re.findall(r"```python\n", PAGE)) == 11
