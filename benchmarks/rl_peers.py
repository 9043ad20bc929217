"""Compare A2C, PPO and DQN in steps per CPU-second with Stable-Baselines3, sbx and a loop that JAX compiles whole.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/rl_peers.py [--task a2c ppo …] [--steps 40000] [--repeats 5]
        [--json FILE]

Contenders alternate, with the same settings and networks. Only acting and learning count, in CPU time of the process;
"with start" includes what a contender needs before, compilation by JAX for instance. Ratios are those of the medians.
"composed" is our agent without training steps in one call. A contender whose packages are missing is left out.

a2c: Stable-Baselines3's defaults on CartPole-v1: 8 environments, 5 steps per rollout, two networks of 64-64 tanh units,
RMSprop with a constant learning rate of 7e-4.

ppo: the settings of Stable-Baselines3's zoo for CartPole-v1, at constant rates: 8 environments, 32 steps per rollout,
20 epochs of one minibatch of 256 steps.

ppo-8, ppo-16, ppo-64: 8, 16 and 64 environments with 128, 128 and 32 steps per rollout, minibatches of 128, 256 and 512
steps, and 10, 4 and 4 epochs. The environment of JAX is its own CartPole (jax_ppo.py), ours is Gymnasium's.

dqn: the zoo's settings for DQN, one-step targets and a constant rate; the random actions of the start, which teach
nothing, are part of it. "LayerNorm" is our default network; the peers have none. sbx does not clip gradients.

hopper: PPO on Hopper-v5 with the settings of ``--preset hopper`` at a constant rate. All normalize observations and
rewards.

a3c: steps per wall-clock second of two workers compared with one. Each worker has its own core, and its start is not
measured. Needs two idle cores.

solved: CPU-seconds from the start of a process until the last 20 training episodes on CartPole-v1 have a mean return of
475, imports and compilation included, with PPO and the settings of ppo-8. ``--repeats`` is the number of seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from automl_ext.rl import DQNConfig, PPOConfig

RETURN, EPISODES, LIMIT = 475, 20, 400_000  # when CartPole is solved, and the most steps until then
STEPS = {"a2c": 40_000, "ppo": 20_000, "dqn": 20_000, "hopper": 40_000}


class Rate(NamedTuple):
    """Steps per second, and the CPU-seconds before the measured part."""

    steps: float
    start: float


Contender = Callable[[int, int], Rate]  # steps, seed


def measured(warm_up: Callable[[], Any], learn: Callable[[], int], began: float) -> Rate:
    """Measure ``learn``, which returns its number of steps, after the first calls, which are slower."""
    warm_up()
    start = time.process_time()
    steps = learn()
    return Rate(steps / (time.process_time() - start), start - began)


def our_rate(agent: Any, steps: int, began: float, composed: bool, warm: bool = True) -> Rate:
    if composed:  # a method of the agent's own
        name = "step" if agent.algorithm == "dqn" else "loss"
        setattr(agent, name, getattr(agent, name))

    def learn() -> int:
        before = agent.envs.steps
        while agent.envs.steps < before + steps:
            agent.iterate()
        return int(agent.envs.steps - before)

    return measured(agent.iterate if warm else int, learn, began)


def sb3_rate(agent: Any, steps: int, began: float, first: int) -> Rate:
    def learn() -> int:
        agent.learn(steps)  # counts its steps from 0
        return int(agent.num_timesteps)

    return measured(lambda: agent.learn(first) if first else None, learn, began)


def library(name: str) -> Any:
    """Return stable_baselines3, or sbx, which has its interface."""
    import importlib

    return importlib.import_module(name)


def vector(env_id: str, n_envs: int, seed: int) -> Any:
    from stable_baselines3.common.env_util import make_vec_env

    return make_vec_env(env_id, n_envs=n_envs, seed=seed)


def our_a2c(steps: int, seed: int, composed: bool = False) -> Rate:
    from automl_ext.rl import A2C, A2CConfig

    began = time.process_time()
    theirs: dict[str, Any] = {"lr": 7e-4, "lr_decay": False, "gae_lambda": 1.0, "ent_coef": 0.0}
    agent = A2C(A2CConfig(total_steps=10**9, seed=seed, normalize_rewards=False, **theirs))
    return our_rate(agent, steps, began, composed)


def sb3_a2c(steps: int, seed: int) -> Rate:
    kind, began = library("stable_baselines3").A2C, time.process_time()
    agent = kind("MlpPolicy", vector("CartPole-v1", 8, seed), seed=seed, device="cpu")
    return sb3_rate(agent, steps, began, 40)


ZOO: dict[str, Any] = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8}
ZOO |= {"ent_coef": 0.0}
SHAPES: dict[str, dict[str, Any]] = {
    "ppo": {"n_envs": 8} | ZOO,
    "ppo-8": {"n_envs": 8, "n_steps": 128, "batch_size": 128, "n_epochs": 10},
    "ppo-16": {"n_envs": 16, "n_steps": 128, "batch_size": 256, "n_epochs": 4},
    "ppo-64": {"n_envs": 64, "n_steps": 32, "batch_size": 512, "n_epochs": 4},
}
SHAPES = {name: {"gamma": 0.99, "gae_lambda": 0.95, "ent_coef": 0.01} | shape for name, shape in SHAPES.items()}
LR = 1e-3


def our_agent(shape: dict[str, Any], seed: int) -> Any:
    from automl_ext.rl import PPO, PPOConfig

    constant: dict[str, Any] = {"lr": LR, "lr_decay": False, "normalize_rewards": False, "total_steps": 10**9}
    return PPO(PPOConfig(seed=seed, **constant, **shape))


def sb3_agent(package: str, shape: dict[str, Any], seed: int) -> Any:
    options = {name: value for name, value in shape.items() if name != "n_envs"}
    envs = vector("CartPole-v1", shape["n_envs"], seed)
    return library(package).PPO("MlpPolicy", envs, learning_rate=LR, clip_range=0.2, seed=seed, device="cpu", **options)


def jax_loop(shape: dict[str, Any], seed: int) -> Any:
    import jax_ppo

    return jax_ppo.make(jax_ppo.Settings(lr=LR, **shape), seed)


def our_ppo(name: str, steps: int, seed: int, composed: bool = False) -> Rate:
    began = time.process_time()
    return our_rate(our_agent(SHAPES[name], seed), steps, began, composed)


def sb3_ppo(name: str, package: str, steps: int, seed: int) -> Rate:
    shape, _, began = SHAPES[name], library(package), time.process_time()
    return sb3_rate(sb3_agent(package, shape, seed), steps, began, shape["n_envs"] * shape["n_steps"])


def jax_ppo(name: str, steps: int, seed: int) -> Rate:
    import jax

    began, shape = time.process_time(), SHAPES[name]
    update, carry = jax_loop(shape, seed)
    rollout = shape["n_envs"] * shape["n_steps"]
    updates = -(-steps // rollout)

    def learn() -> int:
        jax.block_until_ready(update(carry, updates))
        return updates * rollout

    return measured(learn, learn, began)


def hopper(**settings: Any) -> PPOConfig:
    """Return the preset hopper with a constant learning rate."""
    from automl_ext.rl import PPOConfig
    from automl_ext.rl.presets import preset

    return dataclasses.replace(preset("hopper", PPOConfig()), lr_decay=False, **settings)


def our_hopper(steps: int, seed: int, composed: bool = False) -> Rate:
    from automl_ext.rl import PPO

    began = time.process_time()
    return our_rate(PPO(hopper(total_steps=10**9, seed=seed)), steps, began, composed)


def sb3_hopper(steps: int, seed: int) -> Rate:
    from stable_baselines3.common.vec_env import VecNormalize

    c, kind, began = hopper(), library("stable_baselines3").PPO, time.process_time()
    equal = ("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "clip_range", "ent_coef", "vf_coef")
    envs = VecNormalize(vector(c.env_id, c.n_envs, seed), gamma=c.gamma)
    options = {name: getattr(c, name) for name in equal}
    agent = kind("MlpPolicy", envs, learning_rate=c.lr, seed=seed, device="cpu", **options)
    return sb3_rate(agent, steps, began, c.n_envs * c.n_steps)


def zoo_dqn(**settings: Any) -> DQNConfig:
    """Return a configuration with the settings of Stable-Baselines3's zoo for CartPole-v1."""
    from automl_ext.rl import DQNConfig

    zoo: dict[str, Any] = {"n_step": 1, "hidden": (256, 256), "lr": 2.3e-3, "lr_decay": False}
    zoo |= {"train_freq": 256, "gradient_steps": 128, "target_update_interval": 10}
    return DQNConfig(**zoo, **settings)


def our_dqn(steps: int, seed: int, composed: bool = False, layer_norm: bool = False) -> Rate:
    from automl_ext.rl import DQN

    began = time.process_time()
    agent = DQN(zoo_dqn(total_steps=steps, seed=seed, layer_norm=layer_norm))
    return our_rate(agent, steps, began, composed, warm=False)


def sb3_dqn(package: str, steps: int, seed: int) -> Rate:
    c, kind, began = zoo_dqn(), library(package).DQN, time.process_time()
    equal = ("batch_size", "learning_starts", "gamma", "target_update_interval", "train_freq", "gradient_steps")

    def make() -> Any:
        return kind(
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

    make().learn(c.learning_starts + c.train_freq)  # compiles
    return sb3_rate(make(), steps, began, 0)


def a3c_rate(workers: int, steps: int, seed: int) -> Rate:
    from automl_ext.rl import A3C, A3CConfig

    agent = A3C(A3CConfig(n_workers=workers, seed=seed, eval_every=10**9, checkpoint_every=10**9, total_steps=10**9))
    try:
        agent.iterate()  # starts the workers
        before, start = agent.envs.steps, time.perf_counter()
        while agent.envs.steps < before + steps:
            agent.iterate()
        return Rate((agent.envs.steps - before) / (time.perf_counter() - start), 0.0)
    finally:
        agent.envs.close()


# ---- CPU-seconds until CartPole is solved


def solve_ours(seed: int) -> None:
    agent = our_agent(SHAPES["ppo-8"], seed)
    while agent.envs.steps < LIMIT and not solved([e.episode_return for e in agent.envs.episodes]):
        agent.iterate()


def solve_sb3(package: str, seed: int) -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    class Stop(BaseCallback):
        def _on_rollout_start(self) -> None:
            self.found = solved([episode["r"] for episode in self.model.ep_info_buffer])

        def _on_step(self) -> bool:
            return not self.found

    sb3_agent(package, SHAPES["ppo-8"], seed).learn(LIMIT, callback=Stop())


def solve_jax(seed: int) -> None:
    update, carry = jax_loop(SHAPES["ppo-8"], seed)
    returns: list[float] = []
    for _ in range(LIMIT // 1024):
        if solved(returns):
            return
        carry, (lengths, ended) = update(carry, 1)
        returns += lengths[ended].tolist()  # in the order of the steps


def solved(returns: list[float]) -> bool:
    return len(returns) >= EPISODES and statistics.mean(returns[-EPISODES:]) >= RETURN


SOLVERS: dict[str, Callable[[int], None]] = {
    "automl_ext": solve_ours,
    "jax": solve_jax,
    "sbx": partial(solve_sb3, "sbx"),
    "stable_baselines3": partial(solve_sb3, "stable_baselines3"),
}


def solving(name: str, steps: int, seed: int) -> Rate:
    """Measure a solver in a process of its own. The rate is 1 / CPU-seconds."""
    command = [sys.executable, __file__, "--solve", name, str(seed)]
    before = os.times()
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    after = os.times()
    if "ModuleNotFoundError" in process.stderr:
        raise ModuleNotFoundError(process.stderr.strip().splitlines()[-1])
    if process.returncode:
        raise RuntimeError(process.stderr)
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return Rate(1 / seconds, 0.0)


# Others are compared with the first contender.
TASKS: dict[str, dict[str, Contender]] = {
    "a2c": {"automl_ext": our_a2c, "composed": partial(our_a2c, composed=True), "stable_baselines3": sb3_a2c},
    "ppo": {
        "automl_ext": partial(our_ppo, "ppo"),
        "composed": partial(our_ppo, "ppo", composed=True),
        "stable_baselines3": partial(sb3_ppo, "ppo", "stable_baselines3"),
        "sbx": partial(sb3_ppo, "ppo", "sbx"),
    },
    **{
        name: {
            "automl_ext": partial(our_ppo, name),
            "composed": partial(our_ppo, name, composed=True),
            "jax": partial(jax_ppo, name),
        }
        for name in ("ppo-8", "ppo-16", "ppo-64")
    },
    "dqn": {
        "automl_ext": our_dqn,
        "composed": partial(our_dqn, composed=True),
        "LayerNorm": partial(our_dqn, layer_norm=True),
        "stable_baselines3": partial(sb3_dqn, "stable_baselines3"),
        "sbx": partial(sb3_dqn, "sbx"),
    },
    "hopper": {
        "automl_ext": our_hopper,
        "composed": partial(our_hopper, composed=True),
        "stable_baselines3": sb3_hopper,
    },
    "a3c": {"two processes": partial(a3c_rate, 2), "one process": partial(a3c_rate, 1)},
    "solved": {name: partial(solving, name) for name in SOLVERS},
}


def compare(task: str, steps: int, repeats: int) -> dict[str, Any]:
    """Measure the contenders of a task; return the facts of its row."""
    rates: dict[str, list[Rate]] = {}
    left_out: dict[str, str] = {}
    for seed in range(repeats):
        for name, contender in TASKS[task].items():
            if name in left_out:
                continue
            try:
                rates.setdefault(name, []).append(contender(steps, seed))
            except ModuleNotFoundError as error:
                left_out[name] = str(error)
    rates = {name: found for name, found in rates.items() if found}
    medians = {name: statistics.median(rate.steps for rate in found) for name, found in rates.items()}
    start = {name: max(rate.start for rate in found) for name, found in rates.items()}  # of the one that compiled
    first = next(iter(medians.values()))
    facts = {
        "steps": steps,
        "rates": {name: [rate.steps for rate in found] for name, found in rates.items()},
        "medians": medians,
        "start_cpu_seconds": start,
        "ratios": {name: first / median for name, median in list(medians.items())[1:]},
        "left_out": left_out,
    }
    for name, median in medians.items():
        lowest, highest = (f(rate.steps for rate in rates[name]) for f in (min, max))
        if task == "solved":
            print(f"{task:<8}{name:<20}{1 / median:>10.1f} CPU-s   ({1 / highest:.1f} to {1 / lowest:.1f})", flush=True)
            continue
        with_start = steps / (steps / median + start[name])
        ratio = f"{first / median:.2f}"
        shown = f"{median:>10,.0f} steps/s   ({lowest:,.0f} to {highest:,.0f}; with start {with_start:,.0f})   {ratio}"
        print(f"{task:<8}{name:<20}{shown}", flush=True)
    for name, reason in left_out.items():
        print(f"{task:<8}{name:<20} left out: {reason}", flush=True)
    return facts


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, nargs="+", default=[name for name in TASKS if name != "a3c"])
    parser.add_argument("--steps", type=int, help="steps of each measurement; default: by task")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file of results; other tasks of it are kept")
    parser.add_argument("--solve", nargs=2, metavar=("CONTENDER", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.solve:
        SOLVERS[args.solve[0]](int(args.solve[1]))
        return
    for task in args.task:
        facts = compare(task, args.steps or STEPS.get(task, 100_000), args.repeats)
        facts |= {"torch": torch.__version__, "python": platform.python_version(), "processor": processor()}
        facts["instruction_set"] = os.environ.get("AUTOML_EXT_CPU", "")
        if args.json is not None:
            stored = json.loads(args.json.read_text()) if args.json.exists() else {}
            args.json.write_text(json.dumps(stored | {task: facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
