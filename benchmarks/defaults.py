"""Compare the default settings of PPO, A2C and DQN with those of Stable-Baselines3.

    OMP_NUM_THREADS=1 python benchmarks/defaults.py [--algorithm ppo] [--only TASK ...] [--side ours sb3] [--seeds 5]
        [--json benchmarks/results/defaults.json] [--picture docs/images/defaults.png]

The defaults of an algorithm were chosen on its tasks CHOSEN_ON, and not changed after runs on the others of DEFAULTS.
Both sides train for the same number of steps, each with the defaults of its constructor. The last policy plays 30
episodes with its most probable actions.
On the tasks CONTROL, which are for PPO, both sides have settings for the task: a preset of ours, and those of
Stable-Baselines3's zoo. Action masks are hidden from both sides, except in the tasks MASKED, which are for ours, as are
the tasks PRESET, for DQN with our preset.
A run's score is (return − random) / (best known − random). CPU-seconds are those of acting and learning. Runs whose row
the file has are not repeated; seeds are the outer loop, so that an interrupted benchmark has equally many seeds of both
sides. Without --seeds no run is made: the picture is made from the file, as `make docs-tables` makes the table. Needs
stable-baselines3 for its side, the extras box2d and minatar, and gymnasium[mujoco].
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation

EPISODES = 30
LONGEST = 5_000  # steps of an episode in an evaluation; MinAtar has no limit
SIDES = {"ours": "automl_ext", "sb3": "Stable-Baselines3"}


class Grid(gymnasium.Env):
    """Walk to a goal on a 10 × 10 grid: −0.05 per step, 1 at the goal, at most 50 steps. Both places are random.

    Observations are the rows and columns of the agent and of the goal.
    """

    observation_space = Box(0, 9, (4,), np.float32)
    action_space = Discrete(4)
    MOVES = ((0, 1), (0, -1), (1, 0), (-1, 0))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        places = self.np_random.choice(100, 2, replace=False)
        self.agent, self.goal = (divmod(int(place), 10) for place in places)
        self.steps = 0
        return self.observation(), {}

    def observation(self) -> np.ndarray:
        return np.array([*self.agent, *self.goal], np.float32)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        moved = [x + dx for x, dx in zip(self.agent, self.MOVES[action], strict=True)]
        self.agent = (min(max(moved[0], 0), 9), min(max(moved[1], 0), 9))
        self.steps += 1
        reached = self.agent == self.goal
        return self.observation(), reached - 0.05, reached, self.steps >= 50 and not reached, {}


class Courier(gymnasium.Env):
    """Carry parcels on a 5 × 5 grid: 0.5 for a parcel picked up, 1 for one delivered, −0.02 per step, for 100 steps.

    An agent that moves to the parcel picks it up, and delivers it where it moves to the destination. Both places are
    random; after a delivery there is a new parcel. Observations are the rows and columns of the agent, of the parcel
    and of its destination, and whether the agent carries it.
    """

    observation_space = Box(0, 4, (7,), np.float32)
    action_space = Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        self.agent = self.place()
        self.new_parcel()
        return self.observation(), {}

    def place(self) -> tuple[int, int]:
        return divmod(int(self.np_random.integers(25)), 5)

    def new_parcel(self) -> None:
        self.parcel, self.goal, self.carries = self.place(), self.place(), False

    def observation(self) -> np.ndarray:
        return np.array([*self.agent, *self.parcel, *self.goal, self.carries], np.float32)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        row, column = (x + dx for x, dx in zip(self.agent, Grid.MOVES[action], strict=True))
        self.agent = (min(max(row, 0), 4), min(max(column, 0), 4))
        reward = -0.02
        if self.carries:
            self.parcel = self.agent
            if self.agent == self.goal:
                reward += 1.0
                self.new_parcel()
        elif self.agent == self.parcel:
            reward += 0.5
            self.carries = True
        self.steps += 1
        return self.observation(), reward, False, self.steps >= 100, {}


class Shop(gymnasium.Env):
    """Order goods for 100 days: a day pays 0.1 per unit sold and costs 0.02 per unit left and 0.2 per order.

    The action orders 0, 5, 10 or 15 units, which arrive two days later; at most 30 fit. The demand is of a Poisson
    distribution, with a mean of 3 on five days of the week and of 9 on two. Observations are the stock, the two orders
    under way and the day of the week.
    """

    observation_space = Box(0, 30, (4,), np.float32)
    action_space = Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.stock, self.orders, self.days = 10, [0, 0], int(self.np_random.integers(7))
        self.steps = 0
        return self.observation(), {}

    def observation(self) -> np.ndarray:
        return np.array([self.stock, *self.orders, self.days % 7], np.float32)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        demand = int(self.np_random.poisson(9 if self.days % 7 > 4 else 3))
        sold = min(demand, self.stock)
        self.stock = min(self.stock - sold + self.orders[0], 30)
        self.orders = [self.orders[1], 5 * int(action)]
        self.days += 1
        self.steps += 1
        reward = 0.1 * sold - 0.02 * self.stock - 0.2 * (action > 0)
        return self.observation(), reward, False, self.steps >= 100, {}


class WithoutMask(gymnasium.Wrapper):
    """An environment without the action mask in its info."""

    def reset(self, **options: Any) -> tuple[Any, dict]:
        observation, info = self.env.reset(**options)
        info.pop("action_mask", None)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        *rest, info = self.env.step(action)
        info.pop("action_mask", None)
        return (*rest, info)


class Task(NamedTuple):
    """A task.

    Attributes:
        env: an environment id or a class.
        steps: number of environment steps to train for.
        best: the best return that is known.
        source: where it is from.
        one_hot: whether a wrapper makes vectors of the Discrete observations, for both sides.
        masked: whether the agent sees the environment's action mask; Stable-Baselines3's algorithms know no masks.
        preset: name of our preset; None: our defaults.
        zoo: arguments of Stable-Baselines3's constructor, from its zoo; None: its defaults.
    """

    env: Any
    steps: int
    best: float
    source: str
    one_hot: bool = False
    masked: bool = False
    preset: str | None = None
    zoo: dict[str, Any] | None = None


DEFAULTS = {
    "CartPole": Task("CartPole-v1", 100_000, 500.0, "the most possible"),
    "LunarLander": Task("LunarLander-v3", 200_000, 262.0, "rl_practice.json: PPO from a clone"),
    "MinAtar Breakout": Task("MinAtar/Breakout-v1", 300_000, 16.4, "rl_learning.json: Rainbow"),
    "Pendulum": Task("Pendulum-v1", 200_000, -150.0, "about that of TD3 and SAC in Stable-Baselines3's zoo"),
    "grid": Task(Grid, 40_000, 0.667, "exact: 1 − 0.05 · the mean distance"),
    "courier": Task(Courier, 30_000, 20.77, "exact: value iteration over 100 steps"),
    "shop": Task(Shop, 30_000, 17.95, "exact: value iteration over 100 steps"),
    "Acrobot": Task("Acrobot-v1", 100_000, -71.0, "rl_learning.json: DQN"),
    "MountainCar": Task("MountainCar-v0", 200_000, -100.0, "about that of DQN in Stable-Baselines3's zoo"),
    "FrozenLake 8x8": Task("FrozenLake8x8-v1", 200_000, 0.913, "exact: value iteration over 200 steps", True),
    "Taxi": Task("Taxi-v4", 200_000, 7.93, "exact: value iteration over 200 steps", True),
    "MinAtar Space Invaders": Task("MinAtar/SpaceInvaders-v1", 300_000, 130.0, "about that of PPO after 10M steps"),
}
NETWORK = {"log_std_init": -2, "ortho_init": False, "activation_fn": torch.nn.ReLU, "net_arch": [256, 256]}
HOPPER = {
    "batch_size": 32,
    "n_steps": 512,
    "gamma": 0.999,
    "learning_rate": 9.80828e-5,
    "ent_coef": 0.00229519,
    "clip_range": 0.2,
    "n_epochs": 5,
    "gae_lambda": 0.99,
    "max_grad_norm": 0.7,
    "vf_coef": 0.835671,
    "policy_kwargs": NETWORK,
}
HALF_CHEETAH = {
    "batch_size": 64,
    "n_steps": 512,
    "gamma": 0.98,
    "learning_rate": 2.0633e-5,
    "ent_coef": 0.000401762,
    "clip_range": 0.1,
    "n_epochs": 20,
    "gae_lambda": 0.92,
    "max_grad_norm": 0.8,
    "vf_coef": 0.58096,
    "policy_kwargs": NETWORK,
}
TD3 = "about that of TD3 in Stable-Baselines3's zoo, after 1M steps"
CONTROL = {
    "Hopper": Task("Hopper-v5", 300_000, 3_600.0, TD3, preset="hopper", zoo=HOPPER),
    "HalfCheetah": Task("HalfCheetah-v5", 300_000, 9_600.0, TD3, preset="halfcheetah", zoo=HALF_CHEETAH),
}
MASKED = {"Taxi with its mask": DEFAULTS["Taxi"]._replace(masked=True)}
PRESET = {
    f"{name}, --preset minatar": DEFAULTS[name]._replace(preset="minatar")
    for name in ("MinAtar Breakout", "MinAtar Space Invaders")
}
TASKS = DEFAULTS | CONTROL | MASKED | PRESET
CHOSEN_ON = {
    "ppo": ["CartPole", "LunarLander", "MinAtar Breakout", "Pendulum", "grid"],
    "a2c": ["CartPole", "LunarLander", "Pendulum", "grid"],
    "dqn": ["CartPole", "LunarLander", "courier", "shop"],
}
Row = dict[str, Any]
Policy = Callable[[np.ndarray, Any], np.ndarray]  # from observations and action masks, which may be None, to actions


def maker(task: Task) -> Callable[[], gymnasium.Env]:
    """Return a function that makes a new environment."""
    if isinstance(task.env, str) and task.env.startswith("MinAtar/") and task.env not in gymnasium.registry:
        from minatar.gym import register_envs

        register_envs()

    def make() -> gymnasium.Env:
        env = gymnasium.make(task.env) if isinstance(task.env, str) else task.env()
        env = env if task.masked else WithoutMask(env)
        return FlattenObservation(env) if task.one_hot else env

    return make


def ours(algorithm: str, task: Task, seed: int) -> tuple[Policy, float]:
    """Train with our defaults, or with a preset. Return the policy and the CPU-seconds."""
    from automl_ext import rl

    env = task.env if isinstance(task.env, str) and not task.one_hot else maker(task)
    agent = rl.make(algorithm, env, preset=task.preset, total_steps=task.steps, seed=seed)
    start = time.process_time()
    while agent.envs.steps < task.steps:
        agent.iterate()
    seconds = time.process_time() - start
    return lambda observations, mask: agent.predict(observations, action_mask=mask)[0], seconds


def sb3(algorithm: str, task: Task, seed: int) -> tuple[Policy, float]:
    """Train with the defaults of Stable-Baselines3, or with the settings of its zoo. Return policy and CPU-seconds."""
    import stable_baselines3
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    envs: Any = DummyVecEnv([maker(task)])
    if task.zoo:
        envs = VecNormalize(envs, gamma=task.zoo["gamma"])
    make = getattr(stable_baselines3, algorithm.upper())
    agent = make("MlpPolicy", envs, seed=seed, device="cpu", **(task.zoo or {}))
    start = time.process_time()
    agent.learn(task.steps)
    seconds = time.process_time() - start

    def act(observations: np.ndarray, mask: Any) -> np.ndarray:
        seen = envs.normalize_obs(observations) if task.zoo else observations
        return agent.predict(seen, deterministic=True)[0]

    return act, seconds


def mean_return(act: Policy, task: Task, seed: int, episodes: int = EPISODES) -> float:
    """Return the mean return of the first episode in each of ``episodes`` environments."""
    envs = SyncVectorEnv([maker(task)] * episodes, autoreset_mode=AutoresetMode.SAME_STEP)
    observations, info = envs.reset(seed=seed)
    returns, running = np.zeros(episodes), np.ones(episodes, bool)
    for _ in range(LONGEST):
        actions = act(observations, info.get("action_mask"))
        observations, rewards, terminated, truncated, info = envs.step(actions)
        returns += rewards * running
        running &= ~(terminated | truncated)
        if not running.any():
            break
    envs.close()
    return float(returns.mean())


def random_return(task: Task, episodes: int = 200) -> float:
    """Return the mean return of uniformly random actions."""
    space = maker(task)().action_space
    space.seed(0)
    return mean_return(lambda seen, mask: np.stack([space.sample() for _ in seen]), task, seed=0, episodes=episodes)


def score(row: Row, ends: dict[str, Any]) -> float:
    """Return (return − random) / (best known − random)."""
    low, high = ends[row["task"]]["random"], ends[row["task"]]["best"]
    return (row["return"] - low) / (high - low)


def draw(stored: dict[str, Any], algorithm: str, path: Path) -> None:
    """Draw the score of every run with default settings, and the mean of every task and side."""
    from automl_ext.training.files.atomic import write_picture
    from automl_ext.training.pictures.colors import PALETTE
    from automl_ext.training.pictures.curves import add_title, figure, set_axes

    rows = [row for row in stored["rows"] if row["algorithm"] == algorithm]
    tasks = [task for task in DEFAULTS if any(row["task"] == task for row in rows)]
    picture = figure(9, 3.4)
    axes = picture.add_subplot()
    for i, (side, name) in enumerate(SIDES.items()):
        places, means = [], []
        for x, task in enumerate(tasks):
            place = x + 0.36 * (i - 0.5)
            runs = [row for row in rows if (row["task"], row["side"]) == (task, side)]
            if not runs:
                axes.text(place, 0.02, "not run", rotation=90, ha="center", fontsize=8)
                continue
            scores = [score(run, stored["ends"]) for run in runs]
            axes.plot([place] * len(scores), scores, ".", color=PALETTE[i], markersize=4)
            places.append(place)
            means.append(statistics.fmean(scores))
        axes.bar(places, means, 0.34, color=PALETTE[i], alpha=0.45, label=name)
    chosen = stored["chosen_on"][algorithm]
    axes.set_xticks(range(len(tasks)), [x.replace(" ", "\n") + " *" * (x in chosen) for x in tasks])
    axes.set_xlim(-0.5, len(tasks) - 0.5)
    set_axes(axes, "", "score: 0 random, 1 best known")
    add_title(picture, f"{algorithm.upper()} with default settings; *: a task they were chosen on")
    picture.legend(loc="outside lower center", ncols=2, frameon=False)
    write_picture(picture, path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=("ppo", "a2c", "dqn"), default="ppo")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(DEFAULTS), metavar="TASK")
    parser.add_argument("--side", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--seeds", type=int, default=0, help="number of seeds")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/defaults.json"))
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(args.json.read_text()) if args.json.exists() else {"ends": {}, "rows": []}
    stored = found | {"chosen_on": CHOSEN_ON}
    for seed in range(args.seeds):
        for name in args.only:
            for side in args.side:
                run(stored, args.algorithm, name, side, seed, args.json)
    if args.picture:
        draw(stored, args.algorithm, args.picture)


def run(stored: dict[str, Any], algorithm: str, name: str, side: str, seed: int, path: Path) -> None:
    """Make a run that the file does not have, and write its row."""
    from automl_ext.training.machine.environment import cpu_name

    key = {"algorithm": algorithm, "task": name, "side": side, "seed": seed}
    if any(key.items() <= row.items() for row in stored["rows"]):
        return
    task = TASKS[name]
    if name not in stored["ends"]:
        ends = {"random": round(random_return(task), 3), "best": task.best, "source": task.source}
        stored["ends"][name] = ends | {"settings": "presets" if task.preset else "defaults"}
    act, seconds = (ours if side == "ours" else sb3)(algorithm, task, seed)
    found = {"steps": task.steps, "return": round(mean_return(act, task, seed + 1_000), 3)}
    cpu = f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"
    stored["rows"].append(key | found | {"cpu_seconds": round(seconds, 1), "cpu": cpu})
    print(stored["rows"][-1], flush=True)
    lines = ",\n".join(json.dumps(row) for row in stored["rows"])
    chosen_on = json.dumps(stored["chosen_on"], indent=1)
    path.write_text(
        f'{{"chosen_on": {chosen_on},\n"ends": {json.dumps(stored["ends"], indent=1)},\n"rows": [\n{lines}\n]}}\n'
    )


if __name__ == "__main__":
    main()
