"""Compare Dreamer's updates per CPU-second with SheepRL's Dreamer V1, for vector observations and equal sizes.

    python benchmarks/dreamer_updates.py [--rounds 5] [--updates 10] [--json FILE]

Both use one thread. They alternate round by round, so that other work on the machine slows both equally. The ratio of
a round compares two adjacent measurements. Without the package sheeprl, only automl_ext is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from automl_ext.rl.dreamer import Dreamer, DreamerConfig
from automl_ext.rl.replay.sequences import Sequences
from automl_ext.training.machine.memory import keep_freed_memory

BATCH, LENGTH, SIZE, STOCH, HORIZON = 16, 32, 128, 30, 15


def ours() -> Callable[[], object]:
    """Return a call that makes one update of the model for CartPole: observations of four numbers, two actions.

    The batch is made beforehand and has no episode end, so every row counts in the losses and starts a trajectory.
    """
    sizes = {"deter": SIZE, "hidden": SIZE, "units": SIZE, "stoch": STOCH, "horizon": HORIZON}
    layers = {"encoder_layers": 2, "reward_layers": 2, "continue_layers": 3, "value_layers": 3, "actor_layers": 4}
    config = DreamerConfig(batch_size=BATCH, sequence_length=LENGTH, **sizes, **layers)
    agent = Dreamer(config)
    never, always = torch.zeros(LENGTH, BATCH, dtype=torch.bool), torch.ones(LENGTH, BATCH, dtype=torch.bool)
    actions = torch.nn.functional.one_hot(torch.randint(2, (LENGTH, BATCH)), 2).float()
    observations, rewards = torch.randn(LENGTH, BATCH, 4), torch.ones(LENGTH, BATCH)
    sequences = Sequences(observations, actions, rewards, never, always, always)
    return lambda: agent.learn_from(sequences)


def sheeprl() -> Callable[[], object]:
    """Return a call that makes the same update with SheepRL."""
    import gymnasium
    import hydra
    import lightning
    import sheeprl
    from omegaconf import OmegaConf
    from sheeprl.algos.dreamer_v1.agent import build_agent
    from sheeprl.algos.dreamer_v1.dreamer_v1 import train
    from sheeprl.utils.utils import dotdict

    chosen = {
        "exp": "dreamer_v1",
        "env": "gym",
        "env.id": "CartPole-v1",
        "env.num_envs": 1,
        "algo.cnn_keys.encoder": "[]",
        "algo.cnn_keys.decoder": "[]",
        "algo.mlp_keys.encoder": "[state]",
        "algo.mlp_keys.decoder": "[state]",
        "algo.dense_units": SIZE,
        "algo.world_model.encoder.mlp_layers": 2,
        "algo.world_model.observation_model.mlp_layers": 2,
        "algo.world_model.recurrent_model.recurrent_state_size": SIZE,
        "algo.world_model.transition_model.hidden_size": SIZE,
        "algo.world_model.representation_model.hidden_size": SIZE,
        "algo.world_model.stochastic_size": STOCH,
        "algo.world_model.use_continues": True,
        "algo.horizon": HORIZON,
        "algo.per_rank_batch_size": BATCH,
        "algo.per_rank_sequence_length": LENGTH,
        "metric.log_level": 0,
        "fabric.accelerator": "cpu",
    }
    with hydra.initialize_config_dir(str(Path(sheeprl.__file__).parent / "configs"), version_base="1.3"):
        composed = hydra.compose("config", [f"{name}={value}" for name, value in chosen.items()])
    cfg = dotdict(OmegaConf.to_container(composed, resolve=True, throw_on_missing=False))
    torch.distributions.Distribution.set_default_validate_args(False)  # as SheepRL's command line does
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-5, 5, (4,))})
    model, actor, critic, _ = build_agent(fabric, (2,), False, cfg, space)
    optimizers = fabric.setup_optimizers(
        *(
            torch.optim.Adam(network.parameters(), lr, eps=1e-7)
            for network, lr in ((model, 6e-4), (actor, 8e-5), (critic, 8e-5))
        )
    )
    one = torch.ones(LENGTH, BATCH, 1)
    data = {
        "state": torch.randn(LENGTH, BATCH, 4),
        "actions": torch.nn.functional.one_hot(torch.randint(2, (LENGTH, BATCH)), 2).float(),
        "rewards": one,
        "is_first": torch.zeros_like(one),
        "terminated": torch.zeros_like(one),
        "truncated": torch.zeros_like(one),
    }
    return lambda: train(fabric, model, actor, critic, *optimizers, data, None, cfg)


def rate(update: Callable[[], object], updates: int) -> float:
    """Measure the number of updates per CPU-second."""
    start = time.process_time()
    for _ in range(updates):
        update()
    return updates / (time.process_time() - start)


def measure(rounds: int, updates: int) -> dict[str, object]:
    """Return the rates of both contenders in every round, the ratios of the rounds, and their median."""
    keep_freed_memory()  # as a training run does; it applies to both contenders
    contenders = {"automl_ext": ours()}
    if find_spec("sheeprl") is not None:
        contenders["sheeprl"] = sheeprl()
    for update in contenders.values():
        rate(update, 2)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, update in contenders.items():
            rates[name].append(rate(update, updates))
    found: dict[str, object] = {"updates_per_cpu_second": rates}
    if "sheeprl" in rates:
        ratios = [x / y for x, y in zip(rates["automl_ext"], rates["sheeprl"], strict=True)]
        found |= {"ratio": ratios, "median_ratio": statistics.median(ratios)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.rounds, options.updates)
    print(json.dumps(found, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
