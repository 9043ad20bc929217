"""The table of commands. It is the only place where a command, a search strategy or an RL algorithm is registered.

The table imports nothing but the standard library, so that ``automl-ext --help`` need not wait for torch. What a
command needs is named as ``module:object`` and imported when the command runs.

Other distributions add commands by an entry point of the group ``automl_ext.commands``, whose value names a dict like
:data:`COMMANDS`. Its module is imported with this one.
"""

from __future__ import annotations

import os
import sys

from automl_ext_cli import Command

GROUP = "automl_ext.commands"


COMMANDS: dict[str, Command] = {
    "search gdas": Command(
        "supernet",
        "search for a cell with GDAS (Dong & Yang 2019), then train it",
        "automl_ext.nas.supernets.gdas:GDASConfig",
    ),
    "search entmax-gdas": Command(
        "supernet",
        "GDAS with entmax: evaluates only a few operations per edge in each forward pass",
        "automl_ext.nas.supernets.entmax_gdas:EntmaxGDASConfig",
    ),
    "search darts": Command(
        "supernet",
        "search for a cell with first-order DARTS (Liu et al. 2019): evaluates all operations",
        "automl_ext.nas.supernets.darts:DARTSConfig",
    ),
    "search perturbation": Command(
        "supernet",
        "train a supernet with fixed α, then remove operations (Wang et al. 2021)",
        "automl_ext.nas.supernets.perturbation:PerturbationConfig",
    ),
    "search auto": Command(
        "run",
        "find and train a network within a budget of CPU-minutes, by a race of networks",
        "automl_ext.nas.auto.plan:AutoConfig",
        "automl_ext.nas.auto.auto:auto",
        flags="automl_ext.run_options:AutoOptions",
        report="automl_ext.summary:report_auto",
        columns=("test_accuracy",),
        next=("plot", "export", "retrain"),
        divides=True,
    ),
    "search random": Command(
        "strategy",
        "search by drawing architectures uniformly",
        "automl_ext.nas.strategies.random_search:RandomConfig",
    ),
    "search reinforce": Command(
        "strategy",
        "search with a policy that REINFORCE learns (Williams 1992)",
        "automl_ext.nas.strategies.reinforce:ReinforceSearchConfig",
    ),
    "search rea": Command(
        "strategy",
        "search with regularized evolution (Real et al. 2019)",
        "automl_ext.nas.strategies.evolution:EvolutionConfig",
    ),
    "search renas": Command(
        "strategy",
        "search with evolution whose mutations a learned controller chooses (Chen et al. 2019)",
        "automl_ext.nas.strategies.renas:ReNASConfig",
    ),
    "search reinas": Command("alias", "the same as search renas", run="search renas"),
    "search successive-halving": Command(
        "strategy",
        "search with successive halving (Jamieson & Talwalkar 2016)",
        "automl_ext.nas.strategies.successive_halving:SuccessiveHalvingConfig",
    ),
    "score": Command(
        "run",
        "rank architectures without training them",
        "automl_ext.nas.screening.score:ScoreConfig",
        "automl_ext.nas.screening.score:score",
        report="automl_ext.summary:report_scores",
    ),
    "nas-bench": Command(
        "run",
        "compare search strategies on the table of NAS-Bench-201",
        "automl_ext.nas.benchmarks.nats_bench:NASBenchConfig",
        "automl_ext.nas.benchmarks.nats_bench:nas_bench",
        report="automl_ext.summary:report_nas_bench",
        columns=tuple(
            f"{name}{screened}.mean"
            for name in ("random", "reinforce", "rea", "renas", "renas-history")
            for screened in ("", "+screen")
        ),
        divides=True,
    ),
    "nas-table": Command(
        "other",
        "convert the official NATS-Bench files to a table for nas-bench --table",
        "automl_ext.nas.benchmarks.nats_files:NASTableCommand",
        "automl_ext.nas.benchmarks.nats_files:nas_table",
    ),
    "retrain": Command(
        "run",
        "train one architecture from scratch",
        "automl_ext.nas.training.retrain:RetrainConfig",
        "automl_ext.nas.training.retrain:retrain",
        metric=("retrain_valid_accuracy", "retrain_valid_accuracy", (("validate", True),)),
        columns=("test_accuracy",),
        next=("plot", "export"),
        ranked=True,
    ),
    "compare": Command(
        "run",
        "train random architectures with the same settings",
        "automl_ext.nas.training.compare:CompareConfig",
        "automl_ext.nas.training.compare:compare",
        columns=("test_accuracy", "random_mean"),
        divides=True,
    ),
    "ensemble": Command(
        "run",
        "train several networks and select an ensemble",
        "automl_ext.nas.ensembles.ensemble:EnsembleConfig",
        "automl_ext.nas.ensembles.ensemble:ensemble",
        columns=("greedy.test_accuracy", "average.test_accuracy"),
        divides=True,
    ),
    "train reinforce": Command(
        "agent",
        "train an agent with REINFORCE and a baseline (Williams 1992)",
        "automl_ext.rl.algorithms.reinforce:ReinforceConfig",
        "automl_ext.rl.algorithms.reinforce:Reinforce",
    ),
    "train a2c": Command(
        "agent",
        "train an agent with A2C, synchronous advantage actor-critic (Mnih et al. 2016)",
        "automl_ext.rl.algorithms.a2c:A2CConfig",
        "automl_ext.rl.algorithms.a2c:A2C",
    ),
    "train a3c": Command(
        "agent",
        "train an agent with A3C, asynchronous advantage actor-critic (Mnih et al. 2016)",
        "automl_ext.rl.algorithms.a3c:A3CConfig",
        "automl_ext.rl.algorithms.a3c:A3C",
    ),
    "train ppo": Command(
        "agent",
        "train an agent with PPO, proximal policy optimization (Schulman et al. 2017)",
        "automl_ext.rl.algorithms.ppo:PPOConfig",
        "automl_ext.rl.algorithms.ppo:PPO",
    ),
    "train dqn": Command(
        "agent",
        "train an agent with DQN (Mnih et al. 2015); --ablate compares Rainbow's parts",
        "automl_ext.rl.algorithms.dqn:DQNConfig",
        "automl_ext.rl.algorithms.dqn:DQN",
        flags="automl_ext.run_options:DQNOptions",
    ),
    "train rainbow": Command(
        "agent",
        "train an agent with Rainbow, DQN with six extensions (Hessel et al. 2018)",
        "automl_ext.rl.algorithms.rainbow:RainbowConfig",
        "automl_ext.rl.algorithms.rainbow:Rainbow",
    ),
    "train bc": Command(
        "agent",
        "clone the policy of recorded episodes (behavior cloning)",
        "automl_ext.rl.algorithms.bc:BCConfig",
        "automl_ext.rl.algorithms.bc:BC",
    ),
    "train cql": Command(
        "agent",
        "train an agent on recorded episodes with CQL, conservative Q-learning (Kumar et al. 2020)",
        "automl_ext.rl.algorithms.cql:CQLConfig",
        "automl_ext.rl.algorithms.cql:CQL",
    ),
    "train iql": Command(
        "agent",
        "train an agent on recorded episodes with IQL, implicit Q-learning (Kostrikov et al. 2021)",
        "automl_ext.rl.algorithms.iql:IQLConfig",
        "automl_ext.rl.algorithms.iql:IQL",
    ),
    "train vdn": Command(
        "agent",
        "train a team with VDN, whose value is the sum of its agents' values (Sunehag et al. 2017)",
        "automl_ext.rl.algorithms.vdn:VDNConfig",
        "automl_ext.rl.algorithms.vdn:VDN",
    ),
    "train qmix": Command(
        "agent",
        "train a team with QMIX, whose value is monotonic in its agents' values (Rashid et al. 2018)",
        "automl_ext.rl.algorithms.qmix:QMIXConfig",
        "automl_ext.rl.algorithms.qmix:QMIX",
    ),
    "train dreamer": Command(
        "agent",
        "train an agent with Dreamer, in a learned world model (Hafner et al. 2020)",
        "automl_ext.rl.dreamer:DreamerConfig",
        "automl_ext.rl.dreamer:Dreamer",
    ),
    "eval": Command(
        "other",
        "play episodes with a trained policy",
        "automl_ext.cli:EvalCommand",
        "automl_ext.cli:evaluate",
    ),
    "record": Command(
        "other",
        "record episodes of a trained policy, from which bc, cql and iql learn",
        "automl_ext.rl.reports.record:RecordCommand",
        "automl_ext.cli:record",
    ),
    "tune": Command(
        "other",
        "find settings of a command by trials, for example: automl-ext tune train ppo",
        run="automl_ext.tune_command:run_tune",
    ),
    "portfolio": Command(
        "other",
        "build a portfolio, the points that a new study evaluates first, from finished studies",
        "automl_ext.tune.portfolio_command:PortfolioCommand",
        "automl_ext.tune.portfolio_command:run_portfolio",
    ),
    "fit": Command(
        "other",
        "fit an ensemble of models to a table",
        "automl_ext.tabular.commands:FitCommand",
        "automl_ext.tabular.commands:fit_command",
    ),
    "predict": Command(
        "other",
        "predict the new rows of a table",
        "automl_ext.tabular.commands:PredictCommand",
        "automl_ext.tabular.commands:predict_command",
    ),
    "plot": Command(
        "other",
        "plot runs, or draw one cell",
        "automl_ext.cli:PlotCommand",
        "automl_ext.cli:plot",
    ),
    "export": Command(
        "other",
        "write a trained network or policy as files that need no automl_ext",
        "automl_ext.cli:ExportCommand",
        "automl_ext.cli:export",
    ),
    "doctor": Command(
        "other",
        "check this installation",
        "automl_ext.doctor:DoctorCommand",
        "automl_ext.doctor:doctor",
    ),
    "bench": Command(
        "other",
        "compare the ops with PyTorch and other packages",
        "automl_ext.bench.command:BenchCommand",
        "automl_ext.bench.command:bench",
    ),
    "demo": Command(
        "other",
        "show ops, search strategies, an agent and a cell, in 90 seconds",
        "automl_ext.cli:DemoCommand",
        "automl_ext.cli:demo",
    ),
}


def is_in_use(group: str) -> bool:
    """Return whether an installed distribution has entry points of a group.

    importlib.metadata answers this too, but its import would double the time of ``automl-ext --help``.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder)
        except OSError:  # a ZIP file, or no such folder
            continue
        for name in names:
            if name.endswith("-info") and os.path.isfile(path := os.path.join(folder, name, "entry_points.txt")):
                with open(path, "rb") as file:
                    if f"[{group}]".encode() in file.read():
                        return True
    return False


def of_others(known: dict[str, Command]) -> dict[str, Command]:
    """Return the commands of other distributions. Those that cannot be used are named on standard error."""
    found: dict[str, Command] = {}
    if not is_in_use(GROUP):
        return found
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP):
        try:
            commands = entry.load()
            if not isinstance(commands, dict) or not all(isinstance(c, Command) for c in commands.values()):
                raise TypeError(f"expected a dict of automl_ext_cli.Command by name, got {type(commands).__name__}")
            if taken := [name for name in commands if name in known or name in found]:
                raise ValueError(f"there is a command {taken[0]!r} already")
            found |= commands
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            print(f"warning: the commands of {entry.value} (group {GROUP}) are left out: {text}", file=sys.stderr)
    return found


COMMANDS |= of_others(COMMANDS)
# The learners of `tune fit --learner`: their settings are those of a cross-validation, by which `tune` compares them.
LEARNERS = {
    name: Command(
        "run",
        "",
        f"automl_ext.tabular.runs:{run}",
        through="automl_ext.tabular.runs:cross_validate",
        flags="automl_ext.run_options:LearnerOptions",
        metric=("negative_loss", "negative_loss"),
    )
    for name, run in (("lightgbm", "LightGBMOptions"), ("xgboost", "XGBoostOptions"), ("forest", "ForestOptions"))
}
for name, command in (COMMANDS | LEARNERS).items():
    command.name = name.split()[-1]

# The commands that make a run directory; an alias stands for its command.
RUNS = {
    name: found
    for name, command in COMMANDS.items()
    if (found := COMMANDS[command.run] if command.kind == "alias" else command).flags
}
