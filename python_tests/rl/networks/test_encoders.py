"""Bodies for images of any size, layer normalization, and encoders that are passed in."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import Tensor, nn
from torch.nn import functional as F

from automl_ext import rl
from automl_ext.rl.envs.packed import PackedBox
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.body import Body, use_bfloat16
from automl_ext.rl.networks.encoders import ChannelsFirst, channels_last, image_layers, impala
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.rl.registry import algorithm
from automl_ext.training.errors import UserError

VECTOR = Box(-1, 1, (3,), np.float32)


def image(*shape: int) -> Box:
    return Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((4, 84, 84), "auto"),
        ((2, 36, 50), "nature"),
        ((64, 48, 3), "auto"),
        ((10, 10, 10), "auto"),
        ((3, 3, 1), "small"),
        ((7, 11, 3), "impala"),
        ((1, 1, 1), "impala"),
        ((3, 9, 16, 2), "impala"),
    ],
)
def test_bodies_take_images_of_any_size(shape: tuple[int, ...], kind: Any) -> None:
    body = Body(image(*shape), (5,), kind=kind)
    x = torch.randint(256, (2, *shape), dtype=torch.uint8)
    assert body(x).shape == (2, 5)
    torch.testing.assert_close(body(x), nn.Sequential(*body)(x / 255))


@pytest.mark.parametrize("shape", [(4, 84, 84), (84, 84, 4), (4, 64, 64, 3)])
def test_convolutions_of_images_are_channels_last_on_cpus(shape: tuple[int, ...]) -> None:
    """The values are those of the layers one by one, in the standard format."""
    torch.manual_seed(0)
    body, seen = Body(image(*shape), (8,)), []
    first = next(layer for layer in body if isinstance(layer, nn.Conv2d))
    first.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    images = torch.randint(256, (3, *shape), dtype=torch.uint8)
    out = body(images)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    expected = images / 255
    for layer in body:
        expected = layer(expected).contiguous()
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    "space", [image(4, 84, 84), image(84, 84, 4), Dict({"picture": image(20, 20, 3), "x": VECTOR})]
)
@pytest.mark.parametrize("make", [QNetwork, lambda *args: ActorCritic(args[0], Discrete(args[1]), args[2])])
def test_bfloat16_changes_the_precision_of_convolutions_only(space: Any, make: Any) -> None:
    torch.manual_seed(0)
    many = gymnasium.vector.utils.batch_space(space, 64)
    many.seed(0)
    x = many.sample()
    if isinstance(space, Dict):
        space = PackedBox(space)
        x = space.pack(x, 64)
    exact = make(space, 3, (16, 8))
    fast, convolutions = copy.deepcopy(exact), []
    use_bfloat16(fast)
    for layer in fast.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, inputs, out: convolutions.append(out.dtype))
    features, expected = fast.body(torch.from_numpy(x)), exact.body(torch.from_numpy(x))
    assert convolutions
    assert set(convolutions) == {torch.bfloat16}
    assert features.dtype == torch.float32
    assert 0 < (features - expected).norm() / expected.norm() < 0.02
    features.square().sum().backward()
    expected.square().sum().backward()
    for p, q in zip(fast.body.parameters(), exact.body.parameters(), strict=True):
        assert (p.dtype, p.grad.dtype) == (torch.float32, torch.float32)
        assert F.cosine_similarity(p.grad.flatten(), q.grad.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_agents_compute_images_in_bfloat16(name: str, tmp_path: Any) -> None:
    """The exported program does, too."""
    options: Any = {"hidden": (16,), "bfloat16": True}
    agent = rl.make(name, Cells, **options)
    networks = [agent.online, agent.target] if name == "dqn" else [agent.network]
    assert [network.body.dtype for network in networks] == [torch.bfloat16] * len(networks)
    rl.export_policy(agent, tmp_path / name)
    observations = np.stack([agent.envs.observation_space.sample() for _ in range(64)])
    policy = torch.export.load(tmp_path / name / "policy.pt2").module()
    assert policy(torch.from_numpy(observations))[0].tolist() == agent.act(observations).tolist()
    with pytest.raises(UserError, match="bfloat16: expected observations that are images, got vectors"):
        rl.make(name, "CartPole-v1", **options)


def test_small_bytes_are_divided_by_their_largest_value() -> None:
    body = Body(Box(0, 9, (2,), np.uint8), ())  # such as places on a grid; divided by 255 they would look alike
    assert body(torch.tensor([[3, 9]], dtype=torch.uint8)).tolist() == [[pytest.approx(1 / 3), 1.0]]
    assert Body(Box(0, 0, (2,), np.uint8), ()).scale == 1
    packed = PackedBox(Dict({"place": Box(0, 9, (2,), np.uint8)}))
    rows = torch.from_numpy(packed.pack({"place": np.uint8([[3, 9]])}, 1))
    assert packed.vectors(rows).tolist() == [[pytest.approx(1 / 3), 1.0]]


def test_channels_are_found_on_either_side() -> None:
    first = [(4, 84, 84), (100, 84, 84), (3, 20, 30)]
    last = [(84, 84, 3), (20, 30, 3), (6, 6, 6), (7, 7, 20), (2, 7, 7, 20)]  # (7, 7, 20) is MiniGrid's
    assert [channels_last(shape) for shape in (*first, *last)] == [False] * len(first) + [True] * len(last)
    x = torch.arange(2 * 2 * 3 * 4 * 5.0).view(2, 2, 3, 4, 5)  # two stacked images
    stacked = ChannelsFirst()(x)
    assert stacked.shape == (2, 10, 3, 4)
    assert torch.equal(stacked[0, 7], x[0, 1, :, :, 2])


def test_impala_equals_its_formula() -> None:
    layers, features = impala(2, 9, 13, depths=(3, 4))
    x = torch.randn(2, 2, 9, 13)
    convolutions = [m for layer in layers for m in layer.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 2 * 5
    y = x
    for stage in range(2):
        first, *blocks = convolutions[5 * stage : 5 * stage + 5]
        y = F.max_pool2d(first(y), 3, 2, 1)
        for a, b in zip(blocks[::2], blocks[1::2], strict=True):
            y = y + b(a(y.relu()).relu())
    expected = y.relu().flatten(1)
    torch.testing.assert_close(nn.Sequential(*layers)(x), expected)
    assert expected.shape[1] == features
    assert impala(4, 84, 84)[1] == 32 * 11 * 11


def test_layer_norm_precedes_every_activation() -> None:
    network = QNetwork(VECTOR, 2, (6, 8), layer_norm=True, dueling=True)
    x = torch.randn(4, 3)
    y = F.layer_norm(network.body[0](x), (6,)).relu()
    head = network.head
    value, advantage = (F.layer_norm(part, (4,)).relu() for part in head.hidden(y).chunk(2, 1))
    expected = head.value(value) + head.advantage(advantage)
    torch.testing.assert_close(network(x), expected - head.advantage(advantage).mean(1, keepdim=True))

    critic = ActorCritic(VECTOR, Discrete(2), (6,), layer_norm=True)
    for (body, last), found in zip((critic.actor, critic.critic), critic(x), strict=True):
        expected = last(F.layer_norm(body[0](x), (6,)).tanh())
        torch.testing.assert_close(found, expected.view_as(found))


def test_names_and_initial_weights_of_default_networks() -> None:
    torch.manual_seed(0)
    names = list(QNetwork(image(4, 84, 84), 2, (8, 8)).state_dict())
    assert names[:8] == [f"body.{i}.{name}" for i in (0, 2, 4, 7) for name in ("weight", "bias")]
    assert names[8:] == [f"head.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")]
    assert list(ActorCritic(image(6, 6, 2), Discrete(2), (8,)).body.state_dict())[:3] == [
        *("1.weight", "1.bias", "4.weight")
    ]
    torch.manual_seed(0)
    body = Body(VECTOR, (4,))
    torch.manual_seed(0)
    assert torch.equal(body[0].weight, nn.Linear(3, 4).weight)


class Cells(gymnasium.Env):
    """Ten steps; the reward is 1 for the action 1."""

    observation_space, action_space = image(5, 7, 3), Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.low, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.observation_space.low + self.t, float(action), self.t == 10, False, {}


def encoder(frozen: bool = False) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(105, 6)).requires_grad_(not frozen)


def agent_with(network: nn.Module, name: str, env_id: str = "") -> rl.Agent:
    options: dict[str, Any] = {"total_steps": 150, "eval_every": 75, "final_episodes": 2, "eval_episodes": 2}
    options |= {"env_id": env_id or rl.make("a2c", Cells).config.env_id, "hidden": (8,), "lr": 0.01}
    if name == "a2c":
        return rl.A2C(rl.A2CConfig(**options), encoder=network)
    return rl.DQN(rl.DQNConfig(**options, learning_starts=20, train_freq=10, gradient_steps=2), encoder=network)


@pytest.mark.parametrize("name", ["a2c", "dqn"])
@pytest.mark.parametrize("frozen", [False, True])
def test_an_encoder_is_trained_unless_it_is_frozen(name: str, frozen: bool) -> None:
    network = encoder(frozen)
    before = copy.deepcopy(network.state_dict())
    agent: Any = agent_with(network, name)
    online = agent.network if name == "a2c" else agent.online
    last = online.actor if name == "a2c" else online.head.advantage
    before_last = last.weight.clone()
    assert online.body[0] is network
    assert torch.equal(network[1].weight, before["1.weight"])  # its initial weights are kept
    agent.learn()
    assert torch.equal(network[1].weight, before["1.weight"]) == frozen
    assert not torch.equal(last.weight, before_last)
    if name == "dqn":
        target = agent.target.body[0]
        assert target is not network
        agent.sync_target()
        assert torch.equal(target[1].weight, network[1].weight)


def test_a_run_with_an_encoder_is_resumed_exactly(tmp_path: Any) -> None:
    def agent() -> Any:
        torch.manual_seed(1)
        return agent_with(nn.Linear(4, 6), "dqn", "CartPole-v1")

    whole, part, rest = agent(), agent(), agent()
    whole.learn(out=tmp_path / "run")
    while part.envs.steps < 80:
        part.iterate()
    rest.load_state_dict(copy.deepcopy(part.state_dict()))
    while rest.envs.steps < 150:
        rest.iterate()
    weights = whole.policy_state()
    assert all(torch.equal(value, weights[key]) for key, value in rest.policy_state().items())
    with pytest.raises(UserError, match=r"best.pt does not fit the agent of .*policy"):
        rl.load_run(tmp_path / "run")  # which cannot make the encoder


class NoFeatures(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (image(2, 20, 20), {"kind": "nature"}, r"body: nature: expected images of at least 36 × 36, got \[2, 20, 20\]"),
        (image(2, 2, 1), {}, "body: small: expected images of at least 3 × 3"),
        (VECTOR, {"kind": "impala"}, r"body: impala: expected images, got vectors, \[3\]"),
        (image(5, 7, 3), {"kind": "small", "encoder": NoFeatures()}, "body: small: expected images, got an encoder"),
        (image(5, 7), {}, r"observations: expected a vector or an image, .*, got \[5, 7\]"),
        (Box(-1, 1, (4, 4)), {}, r"got \[4, 4\]; --frame-stack takes images, not vectors"),
        (image(5, 7, 3), {"encoder": NoFeatures()}, r"encoder: expected features \[2, F\] .*got \[2, 5, 7, 3\]"),
        (
            image(5, 7, 3),
            {"encoder": nn.Linear(2, 2)},
            r"encoder: expected features .*got (addmm: )?mat1 and mat2 shapes",
        ),
    ],
)
def test_what_does_not_fit_is_named(space: Box, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Body(space, (4,), **options)
    assert "\n" not in str(error.value)


def test_layers_of_images_are_those_of_the_kind() -> None:
    assert image_layers((40, 40, 1))[1] == image_layers((40, 40, 1), "nature")[1] == 64
    assert image_layers((35, 35, 1))[1] == image_layers((35, 35, 1), "small")[1]


def test_an_encoder_is_exported_with_the_agent(tmp_path: Any) -> None:
    agent = agent_with(encoder(), "a2c")
    rl.export_policy(agent, tmp_path)
    program = torch.export.load(tmp_path / "policy.pt2").module()
    assert (program(torch.from_numpy(agent.envs.observations))[0].numpy() == agent.act(agent.envs.observations)).all()


@pytest.mark.parametrize("name", ["ppo", "a2c", "dqn"])
def test_an_encoder_acts_in_evaluation_mode_and_learns_in_its_own(name: str) -> None:
    network = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.ReLU())
    fast = {"learning_starts": 16, "train_freq": 16, "gradient_steps": 2} if name == "dqn" else {"n_steps": 16}
    learner: Any = algorithm(name).agent(algorithm(name).config(**fast), encoder=network)
    before = copy.deepcopy(network.state_dict())
    observations = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    assert (learner.predict(observations)[0] == learner.predict(observations)[0]).all()
    learner.predict(observations[0])  # a batch norm in training mode refuses a batch of one
    learner.evaluate(1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for _ in range(3):
        learner.iterate()
    # In training mode for the loss of each gradient step only: PPO takes 10 per rollout, A2C one.
    gradient_steps = learner.updates if name == "dqn" else {"ppo": 30, "a2c": 3}[name]
    assert network[1].num_batches_tracked == gradient_steps > 0
    assert network[1].training
    network.eval()  # a pretrained encoder stays as its owner has set it
    mean = network[1].running_mean.clone()
    learner.predict(observations)
    learner.iterate()
    assert not network[1].training
    assert torch.equal(network[1].running_mean, mean)
