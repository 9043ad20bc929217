"""Tables of commands, with options that make their runs small, and of values for options."""

from __future__ import annotations

GENOTYPE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
DATA = "--subset 60 --channels 2 --device cpu"
IMAGES = f"{DATA} --epochs 1 --batch-size 16"
SUPERNET = f"{IMAGES} --retrain-epochs 1 --retrain-channels 2"
SEARCH = f"{IMAGES} --evaluations 2"
STEPS = "--total-steps 64 --eval-every 64 --eval-episodes 1 --final-episodes 1 --checkpoint-every 32"
AGENT = f"{STEPS} --hidden 16"
RECORDED = f"{AGENT} --episodes episodes.npz"
TEAM = f"{AGENT} --batch-size 8 --buffer-size 100 --learning-starts 16"
Q = f"{TEAM} --train-freq 8 --gradient-steps 1"
DREAMER = "--prefill 20 --pretrain 1 --batch-size 2 --sequence-length 4 --deter 8 --stoch 4 --hidden 8 --units 8"
# Command → arguments that make its run small, or one that is refused (demo, bench: they take too long).
SMALL = {
    "search gdas": SUPERNET,
    "search entmax-gdas": SUPERNET,
    "search darts": SUPERNET,
    "search perturbation": f"{SUPERNET} --orders 1",
    "search auto": f"{DATA} --minutes 0.02 --candidates 3",
    "search random": SEARCH,
    "search reinforce": SEARCH,
    "search rea": SEARCH,
    "search renas": SEARCH,
    "search reinas": SEARCH,
    "search successive-halving": f"{SEARCH} --candidates 2 --rungs 1",
    "score": f"{DATA} --random 3",
    "nas-bench": "--runs 1 --budget 1000 --workers 1",
    "nas-table": "file --out new.npz",
    "retrain": f"{IMAGES} --genotype {GENOTYPE}",
    "compare": f"{IMAGES} --random-cells 1",
    "ensemble": f"{IMAGES} --random-cells 2",
    "train reinforce": AGENT,
    "train a2c": AGENT,
    "train a3c": f"{AGENT} --n-workers 1",
    "train ppo": f"{AGENT} --n-envs 2 --n-steps 8 --batch-size 8 --n-epochs 1",
    "train dqn": Q,
    "train rainbow": Q,
    "train bc": RECORDED,
    "train cql": RECORDED,
    "train iql": RECORDED,
    "train vdn": TEAM,
    "train qmix": TEAM,
    "train dreamer": f"{STEPS} {DREAMER} --horizon 3",
    "eval": "trained --episodes 1",
    "record": "trained --out new.npz --episodes 1",
    "tune": "--trials 1 --confirm 0",  # after the arguments of the tuned command
    "tune fit": "table.csv --target y --folds 2 --rounds 5",
    "portfolio": "tuned --out new.json",
    "fit": "table.csv --target y --minutes 0.02 --out run",
    "predict": "fitted table.csv --out new.csv",
    "plot": "trained",
    "export": "trained --out new",
    "doctor": "--device cpu",
    "bench": "--ops x",
    "demo": "--out file",
}
RUNS = {"trained": "a2c", "retrained": "retrain", "fitted": "fit", "tuned": "tune"}  # run directories, by kind
PATHS = ["none", "full", "file", ".", "", "/dev/null", "/", "/proc/self", "é", "a" * 300, *RUNS, *RUNS]
# Words in the names of options that set the amount of work. These get no large values.
BUDGETS = ("steps", "epochs", "evaluations", "budget", "every", "episodes", "runs", "rounds", "restarts", "cells")
BUDGETS += ("prefill", "pretrain", "candidates", "members", "workers", "updates", "horizon", "interval", "layers")
INTS = ["1", "2", "3", "7"] * 3
INTS += ["-1", "0", "-2147483649", "1.5", "1e3", "nan", "", "x", "１２", "0x10", "1_0", "None", "--5"]
PROCESSES = (
    "workers",
    "n_workers",
    "seed_workers",
    "threads",
)  # each process takes seconds of CPU time to import torch
LARGE = ["2147483648", "4294967296", "18446744073709551616", "1000000", "1" + "0" * 5000]
REALS = ["1", "0.5", "2", "0.1"] * 3
REALS += ["-1", "0", "-0.0", "nan", "inf", "-inf", "1e308", "1e-320", "1e999", "", "x", "½", "1,5"]
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
TOML = ["empty.toml", "none.toml", ".", "bad.toml", "/dev/null", "binary.toml"]
COLUMNS = ["n", "k", "t", "y", "none", "", "é"]
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
    "table": ["table.csv", "none", ".", "/dev/null", "odd.csv", "empty.csv", "file"],
    "resume": ["auto", "none", ".", "/dev/null", "run"],
    "out": [
        *("run", "full", "file", "file/x", "/dev/null", "/proc/x", "run/a/b", "full/../run", "a" * 300),
        *("net.py", "net.pt2", "net.npz", "net.exe", "none/a/net.py", "table.csv", "new.json", "trained"),
    ],
    "config": TOML,
    "algorithms": ["random", "rea", "rea rea", "x"],
    "preset": ["minatar", "x"],
    "gif": ["a.gif", "a", "none/a.gif"],
    "mp4": ["a.mp4", "a.gif"],
    "ranges": TOML,
    "portfolio": ["none.json", ".", "file", "/dev/null"],
    "storage": ["sqlite:///study.db", "journal:study.log", "sqlite:///none/a.db", "sqlite:", "journal:", "x", "x://y"],
    "objective": ["eval_return_mean", "score", "negative_loss", "loss", "test_accuracy", "x"],
    "cluster": ["x", "", "ray:", "ray:/x", "ray://"],  # not "ray", which starts many processes
    "seeds": ["0:2", "0,1", "1,1", "2:1", "0:1000000000", "-1:1", ":", ",", "x"],
    "target": COLUMNS,
    "time": COLUMNS,
    "group": COLUMNS,
    "weight": COLUMNS,
    "type": ["n=numeric", "n=date", "k=text", "y=categorical", "y=ignore", "none=date", "n=x", "=", "x", ""],
    "metric": ["log_loss", "auc", "accuracy", "rmse", "mae", "x"],
    "scores": ["naswot", "synflow", "parameters", "x"],
    "file": ["file", "none", ".", "/dev/null", "empty.toml"],
}
# Options that get these values only: others would take too long.
QUICK = {
    "minutes": ["0.01", "0.02", "0", "-1", "nan", "-inf", "1e-320", "", "x"],
    "demo out": ["file", "/dev/null", "file/x", "/proc/x"],
    "bench ops": ["x", "", "entmax15,x"],
    "cluster": KNOWN["cluster"],
}
