"""Dict and Tuple observations: packed into rows, read part by part, and every part is needed to act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from space_worlds import Listed, Pictured, envs_of_world

from automl_ext import rl
from automl_ext.rl import A2C, DQN, PPO, A2CConfig, DQNConfig, EnvOptions, PPOConfig, make_envs
from automl_ext.rl.envs.callables import env_id_of
from automl_ext.rl.envs.guard import EnvError
from automl_ext.rl.envs.packed import PackedBox
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.training.errors import UserError

Q_LEARNING: dict[str, Any] = {"hidden": (32,), "n_envs": 8, "learning_starts": 100, "train_freq": 32, "lr": 3e-3}
Q_LEARNING |= {"gradient_steps": 16, "total_steps": 3_000, "n_step": 1}
EXPLORING: dict[str, Any] = {"normalize_advantages": True, "ent_coef": 0.02}
CONTEXTS = [np.array([i // 4, i // 2 % 2, i % 2]) for i in range(8)]


@pytest.mark.parametrize(
    ("agent", "config", "iterations", "world"),
    [
        (A2C, A2CConfig(hidden=(16,), optimizer="adam", lr=1e-2, n_steps=4, **EXPLORING), 80, Listed),
        (PPO, PPOConfig(hidden=(16,), n_steps=32, n_epochs=5, batch_size=64, total_steps=5_000, lr=1e-2), 7, Pictured),
        (DQN, DQNConfig(**Q_LEARNING), 18, Pictured),
    ],
    ids=["a2c", "ppo", "dqn"],
)
def test_agents_read_every_part(agent: Any, config: Any, iterations: int, world: Any) -> None:
    learner = agent(config, envs_of_world(world))
    for _ in range(iterations):
        learner.iterate()
    found = [world.bits_of(learner.predict(world.observe(bits))[0]) for bits in CONTEXTS]
    assert np.mean(found == np.array(CONTEXTS)) > 0.9  # without one part, at most 5/6


def rows(space: PackedBox, observations: list[Any]) -> torch.Tensor:
    batch = gymnasium.vector.utils.create_empty_array(space.space, len(observations))
    batch = gymnasium.vector.utils.concatenate(space.space, observations, batch)
    return torch.from_numpy(space.pack(batch, len(observations)))


def test_parts_are_unpacked_as_they_were() -> None:
    space, all_of = PackedBox(Pictured().observation_space), [Pictured.observe(bits) for bits in CONTEXTS[2:7]]
    assert space.shape == (5 * 5 + 8 + 2 * 4,)
    assert space.dtype == np.uint8
    seen = rows(space, all_of)
    (picture,) = space.pictures(seen[1:])  # a view that does not begin at the first byte
    expected = np.stack([x["picture"] for x in all_of[1:]]) / np.float32(255)
    np.testing.assert_allclose(picture.numpy(), expected)
    one_hot = np.eye(2)[[x["number"] - 3 for x in all_of]]
    vectors = np.concatenate([one_hot, np.stack([x["vector"] for x in all_of])], 1)
    np.testing.assert_allclose(space.vectors(seen).numpy(), vectors, rtol=1e-6)
    space = PackedBox(Listed().observation_space)
    first = space.vectors(rows(space, [Listed.observe(np.array([1, 0, 1]))]))
    # {"bits": [0, 1], "pair": [2, 1] of [1 … 3, 0 … 1]}, bytes of 255
    assert first.tolist() == [[0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("world", [Pictured, Listed])
def test_networks_have_an_encoder_per_kind_and_normalize_vectors(world: Any) -> None:
    space = PackedBox(world().observation_space)
    seen = rows(space, [world.observe(bits) for bits in CONTEXTS])
    options: dict[str, Any] = {"normalize": True, "layer_norm": True}
    networks: list[Any] = [
        ActorCritic(space, spaces.Discrete(8), (16,), **options),
        QNetwork(space, 8, (16, 16), dueling=True, noisy=True, **options),
        QNetwork(space, 8, (16,)),
    ]
    for network in networks[:2]:
        network.body.norm.update(seen)
        norm, x = network.body.norm.norm, space.vectors(seen)
        torch.testing.assert_close(norm.mean, x.double().mean(0))
        first = network.body.norm(seen)
        normalized = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-8).sqrt()
        torch.testing.assert_close(first[0] if space.images else first, normalized, atol=1e-3, rtol=1e-3)
    for network in networks:
        outputs = network(seen)
        outputs = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        assert len(np.unique(outputs.detach().numpy().round(9), axis=0)) == 8


def test_a_replay_of_parts_is_saved_without_pickling(tmp_path: Path) -> None:
    agent = DQN(DQNConfig(**Q_LEARNING), envs_of_world(Pictured))
    for _ in range(10):
        agent.iterate()
    torch.save(agent.state_dict(), tmp_path / "state.pt")
    other = DQN(DQNConfig(**Q_LEARNING), envs_of_world(Pictured))
    with pytest.warns(UserWarning, match="new episodes start"):
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    first, second = agent.replay.sample(20), other.replay.sample(20)
    assert first.observations.dtype == torch.uint8
    assert torch.equal(first.observations, second.observations)


def test_discrete_observations_need_no_wrapper(tmp_path: Path) -> None:
    agent = rl.make("ppo", "FrozenLake-v1", hidden=(8,), total_steps=64, eval_every=64, n_envs=2, n_epochs=1)
    agent.learn()
    loaded = rl.load(agent.save(tmp_path / "agent.pt"))
    assert loaded.spaces == agent.spaces
    assert loaded.predict(3)[0] == agent.predict(3)[0]
    assert loaded.predict(np.arange(16))[0].shape == (16,)
    with pytest.raises(ValueError, match=r"observation: expected values of Discrete\(16\), got 16"):
        loaded.predict(16)
    part = {"picture": np.zeros((5, 5, 1), np.uint8), "number": 3}
    with pytest.raises(ValueError, match=r"observation: expected Dict.*, got \['number', 'picture'\]"):
        rl.make("a2c", Pictured).predict(part)


@pytest.mark.parametrize("world", [Pictured, Listed])
def test_saved_agents_and_workers_keep_the_space(world: Any, tmp_path: Path) -> None:
    agent = rl.make("dqn", world, hidden=(8,), buffer_size=100)
    assert rl.load(agent.save(tmp_path / "agent.pt")).spaces == agent.spaces
    envs = [make_envs(env_id_of(world), 2, 0, EnvOptions(mode)) for mode in ("sync", "async")]
    try:
        steps = [[one.step(np.array([t, 7])).next_observations for t in range(3)] for one in envs]
        np.testing.assert_array_equal(*steps)
    finally:
        for one in envs:
            one.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vector": np.zeros(3)}, r"reset\(\) returned an observation vector float64 \[3\], expected float64 \[2\]"),
        ({"vector": np.array([1, np.nan])}, r"reset\(\) returned observation vector: expected finite numbers, got nan"),
        ({"number": 2}, r"reset\(\) returned observation number: expected values of Discrete\(2, start=3\), got 2"),
    ],
)
def test_wrong_parts_are_named(change: dict[str, Any], said: str) -> None:
    class Wrong(Pictured):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(seed=seed)[0] | change, {}

    with pytest.raises(EnvError, match=said):
        rl.make("a2c", Wrong)


def test_what_takes_arrays_only_says_so() -> None:
    for algorithm in ("dreamer", "cql"):
        with pytest.raises(
            UserError, match=rf"{algorithm}: expected arrays \(a Box space\).*a3c, ppo, dqn and rainbow"
        ):
            rl.make(algorithm, Pictured)
    with pytest.raises(UserError, match="popart: expected arrays") as error:
        rl.make("ppo", Pictured, popart=True)
    assert "take them" not in str(error.value)  # it once named policy gradients to PPO
    with pytest.raises(UserError, match="observation picture: body: nature: expected images of at least 36"):
        rl.make("a2c", Pictured, body="nature")
    with pytest.raises(UserError, match=r"observations text: expected arrays of numbers, got Text"):
        PackedBox(spaces.Dict({"text": spaces.Text(4)}))
