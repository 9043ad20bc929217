"""Options of every RL configuration: values out of range are refused by name before a run directory exists."""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from automl_ext import cli
from automl_ext.rl import A2C, A3C, DQN, A2CConfig, A3CConfig, DQNConfig, PPOConfig, RainbowConfig, ReinforceConfig
from automl_ext.rl.dreamer import Dreamer, DreamerConfig
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.body import Body
from automl_ext.rl.networks.parameters import clip_norm
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.training.errors import UserError
from automl_ext.training.machine.memory import machine_memory

CONFIGS = (A2CConfig, A3CConfig, PPOConfig, ReinforceConfig, DQNConfig, RainbowConfig, DreamerConfig, EnvOptions)
ABOVE_0 = {"lr", "adam_eps", "max_grad_norm", "reward_clip", "model_lr", "actor_lr", "value_lr"}
ABOVE_0 |= {"observation_std", "reward_scale", "step_timeout", "clip_range", "value_clip", "target_kl"}
UP_TO_1 = {"gamma", "gae_lambda", "lam", "exploration_fraction", "final_epsilon", "alpha", "beta", "exploration"}
FROM_0 = {"seed", "learning_starts", "prefill", "pretrain", "mode_samples"}  # counts that may be 0
OTHERS: dict[str, list[Any]] = {
    "seed": [-1, 2**32],
    "gradient_steps": [0, -2],
    "atoms": [1],
    "sequence_length": [1],
    "v_min": [math.nan, math.inf, -math.inf],
    "v_max": [math.nan, math.inf, -11.0],
    "frame_stack": [0, 10**9],
    **{name: [0, -1, 2**64] for name in ("deter", "stoch", "units", "depth", "encoder_layers", "actor_layers")},
}


def bad_values(name: str, hint: Any) -> list[Any]:
    kinds = {hint, *typing.get_args(hint)}
    if hint == tuple[int, ...]:
        return [(-1,), (0,), (8, -1)]
    if name in OTHERS:
        return OTHERS[name]
    if float in kinds:
        infinite = [-math.inf] if name == "max_grad_norm" else [math.inf, -math.inf]
        return [-1.0, math.nan, *infinite] + [0.0] * (name in ABOVE_0) + [1.5] * (name in UP_TO_1)
    if int in kinds:
        return [-1] if name in FROM_0 else [0, -1]
    return []


CASES = [
    (config, field.name, value)
    for config in CONFIGS
    for hints in [typing.get_type_hints(config)]
    for field in dataclasses.fields(config)
    for value in bad_values(field.name, hints[field.name])
]


@pytest.mark.parametrize("config", CONFIGS)
def test_number_out_of_range_is_refused_by_name(config: Any) -> None:
    for name, value in (case[1:] for case in CASES if case[0] is config):
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got "):
            config(**{name: value})


def test_every_numeric_option_has_a_case() -> None:
    numeric = {
        (config, name)
        for config in CONFIGS
        for name, hint in typing.get_type_hints(config).items()
        if {int, float, tuple[int, ...]} & {hint, *typing.get_args(hint)}
    }
    assert numeric == {case[:2] for case in CASES}
    assert len(numeric) > 100


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (A2CConfig, {"optimizer": "sgd"}, r"optimizer: expected Literal\['rmsprop', 'adam'\], got 'sgd'"),
        (A2CConfig, {"separate": "all"}, r"separate: expected Literal.*, got 'all'"),
        (A2CConfig, {"n_steps": 5.5}, r"n_steps: expected int, got 5.5"),
        (DQNConfig, {"hidden": 64}, r"hidden: expected tuple\[int, ...\], got 64"),
        (DQNConfig, {"lr": "1e-3"}, r"lr: expected float, got '1e-3'"),
        (DreamerConfig, {"env": {}}, r"env: expected EnvOptions, got {}"),
        (EnvOptions, {"vectorization": "threads"}, r"vectorization: expected Literal.*, got 'threads'"),
    ],
)
def test_values_of_another_type_are_refused_by_name(config: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        config(**values)


def test_lists_ints_and_numbers_of_numpy_get_the_type_of_the_option() -> None:
    config = A2CConfig(hidden=[8, 4], lr=1, n_steps=np.int64(7))  # type: ignore[arg-type]
    assert (config.hidden, config.lr, config.n_steps) == ((8, 4), 1.0, 7)
    assert (type(config.lr), type(config.n_steps)) == (float, int)


def test_v_max_is_above_v_min() -> None:
    with pytest.raises(ValueError, match=r"^v_max: expected above 5, got 5"):
        DQNConfig(v_min=5.0, v_max=5.0)


def test_max_grad_norm_inf_turns_clipping_off() -> None:
    import torch

    for config in (A2CConfig, ReinforceConfig, DQNConfig, DreamerConfig):
        assert config(max_grad_norm=math.inf).max_grad_norm == math.inf
    gradient = torch.tensor([3e4, 4e4])
    assert clip_norm(gradient, math.inf).item() == 5e4
    assert gradient.tolist() == [3e4, 4e4]


@pytest.mark.parametrize("flags", [["a2c", "--lr=-1"], ["dqn", "--hidden", "-1"], ["dreamer", "--max-grad-norm", "0"]])
def test_command_line_refuses_before_a_run_directory_exists(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", *flags, "--out", str(out)]) == 2
    name = flags[1].removeprefix("--").split("=")[0].replace("-", "_")
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}: expected ")
    assert error.count("\n") == 1
    assert not out.exists()


def test_option_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "options.toml", tmp_path / "run"
    file.write_text("gamma = 1.5\n")
    assert cli.main(["train", "a2c", "--config", str(file), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {file}: gamma: expected at least 0 and at most 1, got 1.5\n"
    assert not out.exists()


HUGE = 10**12


@pytest.mark.parametrize(
    ("algorithm", "flag"),
    [
        ("dqn", "buffer_size"),
        ("dqn", "batch_size"),
        ("dqn", "n_envs"),
        ("a2c", "n_envs"),
        ("a2c", "eval_episodes"),
        ("a2c", "n_steps"),
        ("ppo", "n_steps"),
        ("a2c", "hidden"),
        ("dqn", "hidden"),
        ("reinforce", "hidden"),
        ("a3c", "n_workers"),
        ("reinforce", "final_episodes"),
        ("dreamer", "replay_size"),
        ("dreamer", "batch_size"),
    ],
)
def test_options_that_need_too_much_memory_are_refused(
    algorithm: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--{flag.replace('_', '-')}", str(HUGE)]
    if flag in ("replay_size", "n_envs"):
        flags += ["--total-steps", str(HUGE)]
    if (algorithm, flag) == ("dqn", "n_envs"):
        flags += ["--buffer-size", str(HUGE)]
    assert cli.main(["train", algorithm, *flags, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {flag}: needs ")
    assert f"this machine has {machine_memory() / 1e9:,.1f} GB" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", [A2CConfig, DQNConfig, ReinforceConfig])
def test_layers_that_do_not_fit_into_memory_are_refused(config: Any) -> None:
    with pytest.raises(UserError, match=r"^hidden: needs "):
        config(hidden=(10**6, 10**6))


@pytest.mark.parametrize("build", [Body, QNetwork, ActorCritic])
def test_networks_check_the_memory_of_their_exact_sizes(build: Any) -> None:
    """A single layer is large if observations are long vectors."""
    space, units = spaces.Box(0, 1, (10**6,)), 10**6
    others = {Body: [], QNetwork: [2], ActorCritic: [spaces.Discrete(2)]}[build]
    with pytest.raises(UserError, match=r"^hidden: needs "):
        build(space, *others, (units,))


def test_memory_of_worker_processes_and_objects_is_checked() -> None:
    with pytest.raises(UserError, match=r"^n_envs: needs "):
        A2C(A2CConfig(n_envs=10**7, env=EnvOptions("async")))
    with pytest.raises(UserError, match=r"^n_envs: needs "):
        A2C(A2CConfig(n_envs=10**8, env=EnvOptions("sync")))


def test_options_that_fit_into_memory_are_accepted() -> None:
    agents = (DQN(RainbowConfig(hidden=(4,))), A2C(A2CConfig()), A3C(A3CConfig()), Dreamer(DreamerConfig(hidden=4)))
    for agent in agents:  # including a replay of a million transitions
        agent.envs.close()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["a3c", "--frame-stack", "3"], "observations: expected "),
        (["a2c", "--device", "meta"], "unknown device 'meta'"),
        (["dreamer", "--frame-stack", "3"], "observations: expected vectors of floats or uint8 images"),
    ],
)
def test_agent_that_cannot_be_made_leaves_no_run_directory(
    flags: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", *flags, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not out.exists()
