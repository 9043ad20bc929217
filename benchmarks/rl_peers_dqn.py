"""Compare DQN's environment steps per CPU-second with Stable-Baselines3 on CartPole-v1, without evaluation.

    python benchmarks/rl_peers_dqn.py [--steps 50000] [--seeds 0 1 2]

Both use the settings of RL Baselines3 Zoo, that is one-step targets and a constant learning rate, and one thread. They
alternate seed by seed. Needs stable-baselines3.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from automl_ext.rl.algorithms.dqn import DQN, DQNConfig


def ours(steps: int, seed: int) -> float:
    """Measure the steps per CPU-second of our DQN."""
    agent = DQN(DQNConfig(total_steps=steps, seed=seed, n_step=1, lr_decay=False))
    start = time.process_time()
    while agent.envs.steps < steps:
        agent.iterate()
    seconds = time.process_time() - start
    agent.envs.close()
    return agent.envs.steps / seconds


def stable_baselines3(steps: int, seed: int) -> float:
    """Measure the steps per CPU-second of Stable-Baselines3's DQN with the same settings."""
    import stable_baselines3

    c = DQNConfig()
    agent = stable_baselines3.DQN(
        "MlpPolicy",
        c.env_id,
        learning_rate=c.lr,
        batch_size=c.batch_size,
        buffer_size=c.buffer_size,
        learning_starts=c.learning_starts,
        gamma=c.gamma,
        target_update_interval=c.target_update_interval,
        train_freq=c.train_freq,
        gradient_steps=c.gradient_steps,
        exploration_fraction=c.exploration_fraction,
        exploration_final_eps=c.final_epsilon,
        policy_kwargs={"net_arch": list(c.hidden)},
        seed=seed,
        device="cpu",
    )
    start = time.process_time()
    agent.learn(steps)
    return agent.num_timesteps / (time.process_time() - start)


def measure_dqn(steps: int, seeds: list[int]) -> dict[str, list[float]]:
    """Return the steps per CPU-second of both contenders, one number per seed."""
    rates: dict[str, list[float]] = {"automl_ext": [], "stable_baselines3": []}
    for seed in seeds:
        rates["automl_ext"].append(ours(steps, seed))
        rates["stable_baselines3"].append(stable_baselines3(steps, seed))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    rates = measure_dqn(args.steps, args.seeds)
    ratios = [a / b for a, b in zip(rates["automl_ext"], rates["stable_baselines3"], strict=True)]
    print(
        json.dumps({"steps": args.steps, "seeds": args.seeds, "steps_per_cpu_second": rates, "ratio": ratios}, indent=1)
    )


if __name__ == "__main__":
    main()
