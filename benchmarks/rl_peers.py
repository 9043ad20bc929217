"""Compare A2C, PPO and DQN in steps per CPU-second with Stable-Baselines3; measure A3C's speedup by processes.

    OMP_NUM_THREADS=1 python benchmarks/rl_peers.py --algorithm a2c|ppo|hopper|dqn|a3c [--steps 40000] [--repeats 5]
        [--json FILE]

a2c: both sides train on CartPole-v1 with Stable-Baselines3's defaults: 8 environments, 5 steps per rollout, two
networks of 64-64 tanh units, RMSprop with a constant learning rate of 7e-4. Only acting and learning are measured, in
CPU time of the process. Contenders alternate; the ratio is the ratio of the medians.

ppo: the same with Adam and the settings of Stable-Baselines3's zoo for CartPole-v1, at constant rates: 8 environments,
32 steps per rollout, 20 epochs of one minibatch of 256 steps.

hopper: PPO on Hopper-v5 with the settings of ``--preset hopper`` at a constant rate. Both sides normalize observations
and rewards.

dqn: the same with the zoo's settings for DQN: one-step targets and a constant rate; the random actions of the start,
which teach nothing, are part of it.

a3c: steps per wall-clock second of two workers compared with one. Each worker has its own core, and its start is not
measured. Needs two idle cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from automl_ext.rl import DQNConfig, PPOConfig

Contender = Callable[[int, int], float]  # steps, seed → steps per second


def our_rate(agent: Any, steps: int) -> float:
    """Train until the step ``steps``. Return the steps per CPU-second."""
    before, start = agent.envs.steps, time.process_time()
    while agent.envs.steps < steps:
        agent.iterate()
    return float((agent.envs.steps - before) / (time.process_time() - start))


def our_a2c(steps: int, seed: int) -> float:
    from automl_ext.rl import A2C, A2CConfig

    theirs: dict[str, Any] = {"lr": 7e-4, "lr_decay": False, "gae_lambda": 1.0, "ent_coef": 0.0}
    agent = A2C(A2CConfig(total_steps=steps, seed=seed, normalize_rewards=False, **theirs))
    agent.iterate()  # the first calls are slower, for both contenders
    return our_rate(agent, steps)


def stable_baselines3_a2c(steps: int, seed: int) -> float:
    from stable_baselines3 import A2C
    from stable_baselines3.common.env_util import make_vec_env

    agent = A2C("MlpPolicy", make_vec_env("CartPole-v1", n_envs=8, seed=seed), seed=seed, device="cpu")
    agent.learn(40)
    start = time.process_time()
    agent.learn(steps)  # learn() counts its steps from 0
    return steps / (time.process_time() - start)


ZOO: dict[str, Any] = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8}
ZOO |= {"clip_range": 0.2, "ent_coef": 0.0}


def our_ppo(steps: int, seed: int) -> float:
    from automl_ext.rl import PPO, PPOConfig

    constant = {"lr": 1e-3, "lr_decay": False, "clip_decay": False, "normalize_rewards": False}
    agent = PPO(PPOConfig(total_steps=steps, seed=seed, **constant, **ZOO))
    agent.iterate()
    return our_rate(agent, steps)


def stable_baselines3_ppo(steps: int, seed: int) -> float:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env("CartPole-v1", n_envs=8, seed=seed)
    agent = PPO("MlpPolicy", envs, learning_rate=1e-3, seed=seed, device="cpu", **ZOO)
    agent.learn(256)
    start = time.process_time()
    agent.learn(steps)
    return agent.num_timesteps / (time.process_time() - start)  # whole rollouts


def hopper(**settings: Any) -> PPOConfig:
    """Return the preset hopper with a constant learning rate."""
    from automl_ext.rl import PPOConfig
    from automl_ext.rl.presets import preset

    return dataclasses.replace(preset("hopper", PPOConfig()), lr_decay=False, **settings)


def our_hopper(steps: int, seed: int) -> float:
    from automl_ext.rl import PPO

    agent = PPO(hopper(total_steps=steps, seed=seed))
    agent.iterate()
    return our_rate(agent, steps)


def stable_baselines3_hopper(steps: int, seed: int) -> float:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    c = hopper()
    equal = ("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "clip_range", "ent_coef", "vf_coef")
    envs = VecNormalize(make_vec_env(c.env_id, n_envs=c.n_envs, seed=seed), gamma=c.gamma)
    options = {name: getattr(c, name) for name in equal}
    agent = PPO("MlpPolicy", envs, learning_rate=c.lr, seed=seed, device="cpu", **options)
    agent.learn(c.n_envs * c.n_steps)
    start = time.process_time()
    agent.learn(steps)
    return agent.num_timesteps / (time.process_time() - start)  # whole rollouts


def zoo_dqn(**settings: Any) -> DQNConfig:
    """Return a configuration with the settings of Stable-Baselines3's zoo for CartPole-v1."""
    from automl_ext.rl import DQNConfig

    zoo: dict[str, Any] = {"n_step": 1, "hidden": (256, 256), "lr": 2.3e-3, "lr_decay": False}
    zoo |= {"train_freq": 256, "gradient_steps": 128, "target_update_interval": 10}
    return DQNConfig(**zoo, **settings)


def our_dqn(steps: int, seed: int) -> float:
    from automl_ext.rl import DQN

    return our_rate(DQN(zoo_dqn(total_steps=steps, seed=seed)), steps)


def stable_baselines3_dqn(steps: int, seed: int) -> float:
    from stable_baselines3 import DQN

    c = zoo_dqn()
    equal = ("batch_size", "learning_starts", "gamma", "target_update_interval", "train_freq", "gradient_steps")
    agent = DQN(
        "MlpPolicy",
        c.env_id,
        learning_rate=c.lr,
        buffer_size=c.buffer_size,
        exploration_fraction=c.exploration_fraction,
        exploration_final_eps=c.final_epsilon,
        policy_kwargs={"net_arch": list(c.hidden)},
        seed=seed,
        device="cpu",
        **{name: getattr(c, name) for name in equal},
    )
    start = time.process_time()
    agent.learn(steps)
    return agent.num_timesteps / (time.process_time() - start)


def a3c_rate(workers: int, steps: int, seed: int) -> float:
    from automl_ext.rl import A3C, A3CConfig

    agent = A3C(A3CConfig(n_workers=workers, seed=seed, eval_every=10**9, checkpoint_every=10**9, total_steps=10**9))
    try:
        agent.iterate()  # starts the workers
        before, start = agent.envs.steps, time.perf_counter()
        while agent.envs.steps < before + steps:
            agent.iterate()
        return (agent.envs.steps - before) / (time.perf_counter() - start)
    finally:
        agent.envs.close()


# The first contender is compared with the second.
CONTENDERS: dict[str, dict[str, Contender]] = {
    "a2c": {"automl_ext": our_a2c, "stable_baselines3": stable_baselines3_a2c},
    "ppo": {"automl_ext": our_ppo, "stable_baselines3": stable_baselines3_ppo},
    "hopper": {"automl_ext": our_hopper, "stable_baselines3": stable_baselines3_hopper},
    "dqn": {"automl_ext": our_dqn, "stable_baselines3": stable_baselines3_dqn},
    "a3c": {"two processes": partial(a3c_rate, 2), "one process": partial(a3c_rate, 1)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=CONTENDERS, required=True)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    contenders = CONTENDERS[args.algorithm]
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for seed in range(args.repeats):
        for name, contender in contenders.items():
            rates[name].append(contender(args.steps, seed))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ours, peer = list(medians.values())[:2]
    facts: dict[str, Any] = {
        "algorithm": args.algorithm,
        "steps": args.steps,
        "steps_per_second": rates,
        "medians": medians,
        "ratio": ours / peer,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    for name, value in medians.items():
        print(f"{name:<20}{value:>10,.0f} steps/s   ({min(rates[name]):,.0f} to {max(rates[name]):,.0f})")
    print(f"ratio {ours / peer:.2f}")
    if args.json is not None:
        args.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
