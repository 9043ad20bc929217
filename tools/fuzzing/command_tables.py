"""Tables of commands, with options that make their runs small, and of values for options."""

from __future__ import annotations


def words(text: str) -> list[str]:
    return text.split()


GENOTYPE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
IMAGES = words("--subset 60 --epochs 1 --channels 2 --batch-size 16 --device cpu")
SUPERNET = [*IMAGES, *words("--retrain-epochs 1 --retrain-channels 2")]
SEARCH = [*IMAGES, "--evaluations", "2"]
STEPS = words("--total-steps 64 --eval-every 64 --eval-episodes 1 --final-episodes 1 --checkpoint-every 32")
TEAM = words("--hidden 16 --batch-size 8 --buffer-size 100 --learning-starts 16")
Q = [
    *STEPS,
    *words("--hidden 16 --batch-size 8 --buffer-size 100 --learning-starts 16 --train-freq 8"),
]
DREAMER = (
    "--prefill 20 --pretrain 1 --batch-size 2 --sequence-length 4 --deter 8 --stoch 4 --hidden 8 --units 8 --horizon 3"
)
# Command → options that make its run small.
SMALL: dict[str, list[str]] = {
    "search gdas": SUPERNET,
    "search entmax-gdas": SUPERNET,
    "search darts": SUPERNET,
    "search random": SEARCH,
    "search reinforce": SEARCH,
    "search rea": SEARCH,
    "search renas": SEARCH,
    "search reinas": SEARCH,
    "search successive-halving": [*SEARCH, "--candidates", "2", "--rungs", "1"],
    "nas-bench": words("--runs 1 --budget 1000 --workers 1"),
    "retrain": [*IMAGES, "--genotype", GENOTYPE],
    "compare": [*IMAGES, "--random-cells", "1"],
    "ensemble": [*IMAGES, "--random-cells", "2"],
    "train reinforce": [*STEPS, "--hidden", "16"],
    "train a2c": [*STEPS, "--hidden", "16"],
    "train a3c": [*STEPS, "--hidden", "16", "--n-workers", "1"],
    "train dqn": [*Q, "--gradient-steps", "1"],
    "train rainbow": [*Q, "--gradient-steps", "1"],
    "train bc": [*STEPS, "--hidden", "16", "--episodes", "file"],
    "train cql": [*STEPS, "--hidden", "16", "--episodes", "file"],
    "train iql": [*STEPS, "--hidden", "16", "--episodes", "file"],
    "train vdn": [*STEPS, *TEAM],
    "train qmix": [*STEPS, *TEAM],
    "train dreamer": [*STEPS, *DREAMER.split()],
}
OTHERS = ("eval", "record", "plot", "export", "doctor", "bench", "nas-table", "demo")
RUNS = {"trained": "a2c", "retrained": "retrain"}  # run directories that a line may name, by kind
# Words in the names of options that set the amount of work. These get no large values.
BUDGETS = ("steps", "epochs", "evaluations", "budget", "every", "episodes", "runs", "rounds", "restarts", "cells")
BUDGETS += ("prefill", "pretrain", "candidates", "members", "workers", "updates", "horizon", "interval", "layers")
INTS = [
    "-1",
    "0",
    "1",
    "2",
    "3",
    "7",
    "-2147483649",
    "1.5",
    "1e3",
    "nan",
    "",
    "x",
    "１２",
    "0x10",
    "1_0",
    "None",
    "--5",
]
PROCESSES = ("workers", "n_workers")  # each process takes seconds of CPU time to import torch
LARGE = ["2147483648", "4294967296", "18446744073709551616", "1000000", "1" + "0" * 5000]
REALS = ["-1", "0", "-0.0", "1", "0.5", "2", "nan", "inf", "-inf", "1e308", "1e-320", "1e999", "", "x", "½", "1,5"]
TEXTS = ["", "x", "None", "-", "--", "../..", "/", "a" * 3000, "é🙂", "a\nb", "[red]", "{x}", "%s", "$(id)", "\x1b[31m"]
ENVIRONMENTS = ["CartPole-v1", "CartPole-v9", "CartPole", "Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0"]
ENVIRONMENTS += ["FrozenLake-v1", "Taxi-v3", "Blackjack-v1", "MountainCar-v0", "CliffWalking-v1", "LunarLander-v3"]
ENVIRONMENTS += ["ALE/Pong-v5", "ALE/x", "MinAtar/Breakout-v1", "MinAtar/x", "dmc/cartpole-swingup", "dmc/x-y", "dmc/"]
ENVIRONMENTS += ["os:system-v0", "a:b", "GymV21Environment-v0", "phys2d/CartPole-v1", "tabular/Blackjack-v0", "Ant-v5"]
ENVIRONMENTS += ["pettingzoo/automl_ext.rl.envs.two_step", "pettingzoo/x", "pettingzoo/os:getpid", "pettingzoo/"]
ENVIRONMENTS += [
    "CartPole-v1,MountainCar-v0",
    "CartPole-v1,CartPole-v1",
    "Acrobot-v1,MountainCar-v0",
    ",",
    "CartPole-v1,",
]
KNOWN: dict[str, list[str]] = {
    "env_id": ENVIRONMENTS,
    "data": ["digits", "digits:", "npz:", "npz:none", "npz:.", "folder:.", "folder:/dev/null", "cifar10:.", ":"],
    "space": ["nb201", "darts", "darts-frc", "renas", "NB201", "automl_ext.nas:NASBench201", "os:path", ":"],
    "env_kwarg": ["size=5", "sutton_barto_reward=true", "size", "=1", "size=1e400"],
    "wrapper": ["gymnasium.wrappers:ClipAction", "gymnasium.wrappers:RescaleAction", "os:getpid", "x:y", ":"],
    "trust": ["os", "x", ":"],
    "device": ["cpu", "auto", "cuda", "cuda:7", "meta", "mps", "CPU", "cpu:1"],
    "genotype": [
        GENOTYPE,
        GENOTYPE * 2,
        GENOTYPE[:-1],
        "|",
        GENOTYPE.replace("~0", "~²"),
        GENOTYPE.replace("none", ""),
    ],
    "table": ["none", ".", "/dev/null"],
    "resume": ["auto", "none", ".", "/dev/null", "run"],
    "out": ["run", "full", "file", "file/x", "/dev/null", "/proc/x", "run/a/b", "full/../run", "a" * 300],
    "config": ["empty.toml", "none.toml", ".", "bad.toml", "/dev/null", "binary.toml"],
    "algorithms": ["random", "rea", "rea rea", "x"],
    "preset": ["minatar", "x"],
}
