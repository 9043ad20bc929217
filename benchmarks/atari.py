"""Compare PPO and DQN on an Atari game in steps per CPU-second with Stable-Baselines3.

    OMP_NUM_THREADS=1 python benchmarks/atari.py [--algorithms ppo dqn] [--steps 4096] [--repeats 3] [--json FILE]

All train on ALE/Pong-v5 in the same environments, ale-py's vector version, with the network of Nature DQN and
one dense layer of 512 units. Contenders alternate, and only acting and learning are measured, in CPU time of the
process; the ratios are ratios of the medians. ``bfloat16`` computes convolutions in bfloat16, which is faster where the
processor multiplies such numbers itself. ``environments`` are random actions alone.

ppo: the settings of ``--preset atari`` at constant rates: 8 environments, 128 steps per rollout, 4 epochs of
minibatches of 256 steps.

dqn: one environment, an update with batch size 32 every 4 steps, one-step targets, a replay of 10,000 transitions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automl_ext.rl import DQN, PPO, DQNConfig, EnvOptions, PPOConfig, make_envs
from automl_ext.rl.presets import preset
from automl_ext.training.machine.environment import cpu_name
from automl_ext.training.machine.memory import keep_freed_memory

GAME, WARM = "ALE/Pong-v5", 1024  # steps before the measurement
OPTIONS = EnvOptions(reward_clip=1.0)
RATES: dict[str, Any] = {"batch_size": 32, "train_freq": 4, "gradient_steps": 1, "learning_starts": 256, "gamma": 0.99}
RATES |= {"buffer_size": 10_000, "target_update_interval": 8_000}


def our_rate(agent: Any, steps: int) -> float:
    while agent.envs.steps < WARM:
        agent.iterate()
    before, start = agent.envs.steps, time.process_time()
    while agent.envs.steps < before + steps:
        agent.iterate()
    rate = (agent.envs.steps - before) / (time.process_time() - start)
    agent.envs.close()
    return float(rate)


def our_ppo(steps: int, seed: int, bfloat16: bool = False) -> float:
    config = preset("atari", PPOConfig(seed=seed, bfloat16=bfloat16))
    config.env, config.lr, config.lr_decay = OPTIONS, 2.5e-4, False
    return our_rate(PPO(config), steps)


def our_dqn(steps: int, seed: int, bfloat16: bool = False) -> float:
    rule: dict[str, Any] = {"n_step": 1, "lr": 1e-4, "lr_decay": False, "hidden": (512,), "layer_norm": False}
    options = {"env_id": GAME, "env": OPTIONS, "seed": seed, "bfloat16": bfloat16, "total_steps": 10**6}
    return our_rate(DQN(DQNConfig(**options, **rule, **RATES)), steps)


def peer_envs(n_envs: int, seed: int) -> Any:
    """Return the same environments, as Stable-Baselines3 takes them."""
    from stable_baselines3.common.vec_env import VecEnv, VecMonitor

    class Games(VecEnv):
        def __init__(self) -> None:
            self.ours = make_envs(GAME, n_envs, seed, OPTIONS)
            self.render_mode = None
            super().__init__(n_envs, self.ours.observation_space, self.ours.action_space)

        def reset(self) -> np.ndarray:
            self.ours.reset()
            return self.ours.observations

        def step_async(self, actions: np.ndarray) -> None:
            self.actions = actions

        def step_wait(self) -> Any:
            step = self.ours.step(self.actions)
            done = step.terminated | step.truncated
            infos: list[dict[str, Any]] = [{} for _ in range(n_envs)]
            for i in done.nonzero()[0]:
                last = {"terminal_observation": step.next_observations[i]}
                infos[i] = {**last, "TimeLimit.truncated": bool(step.truncated[i])}
            return self.ours.observations, step.rewards, done, infos

        def close(self) -> None:
            self.ours.close()

        def get_attr(self, name: str, indices: Any = None) -> list[Any]:
            return [getattr(self, name, None)] * n_envs

        def set_attr(self, name: str, value: Any, indices: Any = None) -> None: ...

        def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> Any:
            return []

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * n_envs

    return VecMonitor(Games())


def peer_rate(agent: Any, steps: int) -> float:
    agent.learn(WARM)
    start = time.process_time()
    agent.learn(steps, reset_num_timesteps=False)
    rate = (agent.num_timesteps - WARM) / (time.process_time() - start)
    agent.get_env().close()
    return float(rate)


def peer_ppo(steps: int, seed: int) -> float:
    from stable_baselines3 import PPO as Peer

    c = preset("atari", PPOConfig())
    equal = ("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "clip_range", "ent_coef", "vf_coef")
    options = {name: getattr(c, name) for name in equal}
    envs = peer_envs(c.n_envs, seed)
    return peer_rate(Peer("CnnPolicy", envs, learning_rate=2.5e-4, seed=seed, device="cpu", **options), steps)


def peer_dqn(steps: int, seed: int) -> float:
    from stable_baselines3 import DQN as Peer

    envs = peer_envs(1, seed)
    return peer_rate(Peer("CnnPolicy", envs, learning_rate=1e-4, seed=seed, device="cpu", **RATES), steps)


def environments(n_envs: int) -> Callable[[int, int], float]:
    def rate(steps: int, seed: int) -> float:
        envs, rng = make_envs(GAME, n_envs, seed, OPTIONS), np.random.default_rng(seed)
        start = time.process_time()
        while envs.steps < steps:
            envs.step(rng.integers(6, size=n_envs))
        rate = envs.steps / (time.process_time() - start)
        envs.close()
        return float(rate)

    return rate


CONTENDERS: dict[str, dict[str, Callable[[int, int], float]]] = {
    "ppo": {
        "automl_ext": our_ppo,
        "automl_ext, bfloat16": partial(our_ppo, bfloat16=True),
        "stable_baselines3": peer_ppo,
        "environments": environments(8),
    },
    "dqn": {
        "automl_ext": our_dqn,
        "automl_ext, bfloat16": partial(our_dqn, bfloat16=True),
        "stable_baselines3": peer_dqn,
        "environments": environments(1),
    },
}


def measured(algorithm: str, steps: int, repeats: int) -> dict[str, Any]:
    """Measure the contenders of an algorithm in turns; print the medians, and return them as a row."""
    contenders = CONTENDERS[algorithm]
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for seed in range(repeats):
        for name, contender in contenders.items():
            rates[name].append(round(contender(steps, seed), 1))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: round(medians[name] / medians["stable_baselines3"], 3) for name in list(contenders)[:2]}
    for name, value in medians.items():
        print(f"{name:<22}{value:>8,.0f} steps per CPU-second   ({min(rates[name]):,.0f} to {max(rates[name]):,.0f})")
    print(f"{algorithm}: ratios {ratios}", flush=True)
    return {"algorithm": algorithm, "steps": steps, "steps_per_cpu_second": rates, "medians": medians, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--steps", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    facts = {"processor": cpu_name(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    facts |= {"torch": torch.__version__, "stable_baselines3": version("stable-baselines3")}
    rows = [measured(algorithm, args.steps, args.repeats) | facts for algorithm in args.algorithms]
    if args.json is not None:
        args.json.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
