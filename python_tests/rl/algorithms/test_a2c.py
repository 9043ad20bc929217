"""A2C: gradients, the entropy bonus, initial weights and sampling."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from policy_worlds import Bandit, envs_in, rollout_of

from automl_ext.rl import A2C, A2CConfig
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.networks.parameters import FlatAdam, FlatRMSprop, clip_norm, flatten_parameters
from automl_ext.training.errors import UserError


def learner(envs: Envs, iterations: int, **settings: object) -> A2C:
    options = {"hidden": (16,), "lr": 5e-3, "optimizer": "adam", "normalize_rewards": False} | settings
    agent = A2C(A2CConfig(**options), envs)  # type: ignore[arg-type]
    for _ in range(iterations):
        agent.iterate()
    return agent


def test_invalid_steps_have_no_gradient() -> None:
    agent = learner(envs_in(Bandit), 0, ent_coef=0.1)
    rollout = rollout_of(agent, 5)
    assert not rollout.valid.all()
    acted = len(rollout.actions)
    invalid = torch.zeros(len(rollout.observations), dtype=torch.bool)
    invalid[:acted] = ~rollout.valid.flatten()
    changed = rollout._replace(
        observations=torch.where(invalid.unsqueeze(1), -3.0, rollout.observations),
        rewards=torch.where(rollout.valid, rollout.rewards, 1e6),
        actions=torch.where(rollout.valid.flatten(), rollout.actions, 2 - rollout.actions),
    )
    gradients = []
    for each in (rollout, changed):
        agent.parameters.grad.zero_()
        agent.loss(each)[0].backward()
        gradients.append(agent.parameters.grad.clone())
    assert gradients[0].norm() > 0
    assert torch.equal(*gradients)


def test_entropy_bonus_has_the_right_sign() -> None:
    def entropy(coefficient: float) -> float:
        return float(learner(envs_in(Bandit), 150, ent_coef=coefficient).iterate()["entropy"])

    best = np.array([np.e, 1, 1]) / (np.e + 2)  # softmax(reward / coefficient) maximizes reward + coefficient · H
    assert entropy(1.0) == pytest.approx(-(best * np.log(best)).sum(), abs=0.04)
    assert entropy(0.0) < 0.3


@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_update_of_one_vector_equals_update_of_separate_tensors(name: str) -> None:
    """Clipping and the optimizers of one vector of all parameters equal those of PyTorch on separate tensors."""
    torch.manual_seed(0)
    flattened = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    separate = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    separate.load_state_dict(flattened.state_dict())
    flat = flatten_parameters(flattened)
    optimizer: torch.optim.Optimizer
    if name == "adam":
        optimizer, expected = FlatAdam(flat, 1e-2, eps=1e-5), torch.optim.Adam(separate.parameters(), 1e-2, eps=1e-5)
    else:
        optimizer = FlatRMSprop(flat, 1e-2, alpha=0.99, eps=1e-5)
        expected = torch.optim.RMSprop(separate.parameters(), 1e-2, alpha=0.99, eps=1e-5)
    for scale in (0.01, 10.0, 1.0):
        x = scale * torch.randn(6, 4)
        optimizer.zero_grad(set_to_none=False)
        expected.zero_grad()
        flattened(x).square().mean().backward()
        separate(x).square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(separate.parameters(), 0.5)
        assert clip_norm(flat.grad, 0.5).item() == pytest.approx(norm.item(), rel=1e-5)
        optimizer.step()
        expected.step()
    torch.testing.assert_close(list(flattened.parameters()), list(separate.parameters()))


@pytest.mark.parametrize("hidden", [(64, 64), (100,)])
def test_initial_weights_do_not_depend_on_the_number_of_threads(hidden: tuple[int, ...]) -> None:
    before, states = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            states.append(A2C(A2CConfig(hidden=hidden), envs_in(Bandit)).parameters.detach())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_the_most_probable_action_is_that_of_the_network() -> None:
    agent = learner(envs_in(Bandit), 3)
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    with torch.no_grad():
        outputs, _ = agent.network(torch.from_numpy(x))
    assert agent.act(x).tolist() == outputs.argmax(1).tolist()
    assert torch.equal(agent.network.policy(torch.from_numpy(x)), outputs)


def test_unsupported_spaces_and_settings_are_refused() -> None:
    class Many(Bandit):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.Text(4)

    with pytest.raises(UserError, match=r"Text.*a2c.*MultiBinary and Box"):
        A2C(A2CConfig(), Envs(SyncVectorEnv([Many]), 0))
