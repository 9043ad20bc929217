"""Extras together: options, attachment from Python and the command line, own extras, and what replaced old options."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import numpy as np
import pytest
import torch
from compare_runs import same_runs
from image_worlds import Spot

from automl_ext import rl
from automl_ext.cli import main
from automl_ext.rl.envs.transforms import add_transform
from automl_ext.rl.extras import (
    EXTRAS,
    RND,
    Augment,
    Contrastive,
    CountBonus,
    Extras,
    InitialPolicy,
    Potential,
    SelfImitation,
)
from automl_ext.rl.registry import ALGORITHMS
from automl_ext.training.errors import UserError
from automl_ext.training.search_space import with_point
from automl_ext.tune.commands.flags import as_flags, as_toml
from automl_ext.tune.commands.ranges import space_of

SHORT: dict[str, Any] = {"total_steps": 200, "eval_every": 100, "eval_episodes": 1, "final_episodes": 1, "hidden": (8,)}
FLAGS = ["--total-steps", "200", "--eval-every", "100", "--eval-episodes", "1", "--final-episodes", "1"]
FLAGS += ["--hidden", "8"]


def test_all_extras_are_off_by_default_and_attach_in_a_fixed_order() -> None:
    assert list(Extras().each()) == []
    given = [Contrastive(), Augment(), SelfImitation(), RND(), CountBonus(), Potential("mountain-car")]
    names = [extra.name for extra in Extras.of(given).each()]
    assert names == ["potential", "count-bonus", "rnd", "self-imitation", "augment", "contrastive"]
    needs_value = {kind for kind in EXTRAS if not list(Extras.of([kind()]).each())}
    assert needs_value == {InitialPolicy, Potential}
    with pytest.raises(UserError, match="extras: expected RND once, got it twice"):
        Extras.of([RND(), RND(2.0)])


def test_each_extra_has_flags_with_its_name() -> None:
    for extra in (getattr(Extras(), field.name) for field in fields(Extras)):
        for option in fields(extra):
            (named,) = get_type_hints(type(extra), include_extras=True)[option.name].__metadata__
            full = f"{extra.name}.{option.name.replace('_', '-')}"
            assert named.name == ("augment" if full == "augment.kind" else full)


def test_options_without_effect_cause_a_warning() -> None:
    extras = Extras(count_bonus=CountBonus(0.0, once=True), self_imitation=SelfImitation(0, batch_size=2))
    with pytest.warns(UserWarning, match="no effect") as warnings:
        list(extras.each())
    assert [str(w.message) for w in warnings] == [
        "count-bonus.once: no effect without count-bonus.weight",
        "self-imitation.batch_size: no effect without self-imitation.updates",
    ]


def test_python_and_the_command_line_attach_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extras = [CountBonus(0.5, once=True)]
    agent = rl.make("a2c", "CartPole-v1", extras=extras, normalize_rewards=True, **SHORT)
    assert len(agent.envs.transforms) == 2  # type: ignore[attr-defined]
    agent.learn(out=tmp_path / "python")
    options = ["--normalize-rewards", "--count-bonus.weight", "0.5", "--count-bonus.once"]
    assert main(["train", "a2c", "--out", str(tmp_path / "flags"), *FLAGS, *options]) == 0
    same_runs(tmp_path / "python", tmp_path / "flags")
    file = tmp_path / "extras.toml"
    file.write_text("normalize_rewards = true\n[extras.count_bonus]\nweight = 0.5\nonce = true\n")
    assert main(["train", "a2c", "--out", str(tmp_path / "toml"), *FLAGS, "--config", str(file)]) == 0
    same_runs(tmp_path / "python", tmp_path / "toml")
    assert rl.load_run(tmp_path / "flags", "last").config.extras == Extras.of(extras)
    assert main(["eval", str(tmp_path / "flags"), "--episodes", "1", "--policy", "last"]) == 0
    capsys.readouterr()


def test_a_saved_agent_has_its_extras(tmp_path: Path) -> None:
    agent = rl.make("a2c", "CartPole-v1", extras=[RND(0.5)], **SHORT)
    loaded = rl.load(agent.save(tmp_path / "agent.pt"))
    assert loaded.config.extras == Extras.of([RND(0.5)])
    assert loaded.learn()["env_steps"] >= 200


@dataclass
class Halved:
    """An extra of a user: halves all rewards, and counts the steps."""

    name: ClassVar[str] = "halved"
    seams: ClassVar[frozenset[str]] = frozenset({"steps", "after"})
    steps: int = 0

    def attach(self, agent: Any) -> Any:
        add_transform(agent.envs, self)
        agent.seams.after.append(lambda rollout: {"halved": float(rollout.rewards.mean())})
        return self

    def __call__(self, step: Any) -> Any:
        self.steps += int(step.valid.sum())
        return step._replace(rewards=step.rewards / 2)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def test_an_extra_of_your_own_is_attached_and_its_state_saved(tmp_path: Path) -> None:
    options: dict[str, Any] = {"n_envs": 4, "normalize_rewards": False, **SHORT}
    agent = rl.make("ppo", "CartPole-v1", extras=[Halved(), CountBonus(0.1)], **options)
    agent.learn(out=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0.45 < row["halved"] < 0.56 for row in rows)  # 1 + the bonus, halved
    state = torch.load(max((tmp_path / "checkpoints").iterdir()) / "state.pt")["agent"]
    assert state["extras"]["halved"] == {"steps": agent.envs.steps}
    other = rl.make("ppo", "CartPole-v1", extras=[CountBonus(0.1)], **options)
    with pytest.raises(ValueError, match=r"extras: expected none, got \['halved'\]"):
        other.load_state_dict(state)
    with pytest.raises(UserError, match="halved: not possible with a3c, which has no seam for: after, steps"):
        rl.make("a3c", "CartPole-v1", extras=[Halved()])


def test_the_same_extra_is_refused_twice() -> None:
    agent = rl.make("a2c", extras=[CountBonus(0.1)], hidden=(8,))
    with pytest.raises(UserError, match="count-bonus: expected once, got it twice"):
        agent.attach(CountBonus(0.1))


def test_an_initial_policy_is_read_if_all_checkpoints_are_damaged(tmp_path: Path) -> None:
    clone = rl.make("a2c", seed=7, hidden=(8,))
    options: dict[str, Any] = {**SHORT, "lr": 1e-30, "normalize_rewards": False, "popart": False}
    agent = rl.make("a2c", extras=[InitialPolicy(str(clone.save(tmp_path / "clone.pt")))], **options)
    (tmp_path / "run/checkpoints/step-00000100").mkdir(parents=True)
    with pytest.warns(UserWarning, match="step-00000100"):
        agent.learn(out=tmp_path / "run", resume="auto")
    expected = clone.policy_state()
    for name, value in agent.policy_state().items():
        torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize("name", ["a2c", "ppo", "reinforce"])
def test_a_new_agent_has_the_initial_policy_without_learn(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"hidden": (8,), "normalize_rewards": False}
    clone: Any = rl.make(name, seed=7, **options)
    file, expected = clone.save(tmp_path / "clone.pt"), clone.policy_state()

    def begun(use: Any) -> Any:
        agent = rl.make(name, extras=[InitialPolicy(str(file))], lr=1e-30, **options)
        use(agent)
        for key, value in agent.policy_state().items():
            torch.testing.assert_close(value, expected[key], msg=key)
        return agent

    begun(lambda agent: agent.iterate())
    begun(lambda agent: agent.evaluate(1))
    agent = begun(lambda agent: agent.predict(np.zeros(4, np.float32)))
    begun(lambda agent: agent.save(tmp_path / "agent.pt"))
    file.unlink()
    agent.iterate()
    loaded = rl.load(tmp_path / "agent.pt")
    loaded.evaluate(1)
    for key, value in loaded.policy_state().items():
        torch.testing.assert_close(value, expected[key], msg=key)


@pytest.mark.parametrize("name", ["a2c", "a3c", "ppo", "reinforce"])
def test_a_missing_initial_policy_is_an_error_without_learn(name: str, tmp_path: Path) -> None:
    agent = rl.make(name, extras=[InitialPolicy(str(tmp_path / "missing.pt"))], hidden=(8,))
    for use in (agent.iterate, agent.evaluate, lambda: agent.predict(np.zeros(4, np.float32))):
        with pytest.raises(UserError, match=r"missing\.pt"):
            use()
    agent.close()


def test_no_algorithm_ignores_an_extra(tmp_path: Path) -> None:
    """An agent has the extra, or names itself and the extra in an error."""
    made: set[tuple[str, str]] = set()
    for kind in EXTRAS:
        for name in ALGORITHMS:
            extra = {Potential: Potential("mountain-car"), InitialPolicy: InitialPolicy(str(tmp_path))}.get(
                kind, kind()
            )
            options: dict[str, Any] = {"n_step": 1, "buffer_size": 1000} if name in ("dqn", "rainbow") else {}
            options |= {} if name in ("vdn", "qmix", "dreamer") else {"hidden": (8, 8)}
            if kind is SelfImitation and name in ("a2c", "ppo"):
                options["normalize_rewards"] = False
            images = kind in (Augment, Contrastive) and name != "a3c"  # which takes ids only
            try:
                agent = rl.make(name, Spot if images else "MountainCar-v0", extras=[extra], **options)
            except UserError as error:
                assert extra.name in str(error) or name in ("vdn", "qmix", "bc", "cql", "iql", "dreamer"), error  # noqa: PT017
                continue
            seams: Any = agent.seams
            changed = [seams.parts, seams.initial, seams.batch, seams.terms, seams.after]
            assert any(changed) or name == "a3c" or agent.envs.transforms, (name, extra)  # type: ignore[attr-defined]
            made.add((extra.name, name))
            agent.close()
    on_policy, replay = ("a2c", "ppo", "reinforce"), ("dqn", "rainbow")
    expected = {
        "initial-policy": (*on_policy, "a3c"),
        "potential": (*on_policy, *replay, "a3c"),
        "count-bonus": (*on_policy, *replay),
        "rnd": (*on_policy, *replay),
        "self-imitation": on_policy,
        "augment": replay,
        "contrastive": replay,
    }
    assert made == {(extra, name) for extra, names in expected.items() for name in names}


def test_wrong_values_are_one_line_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "a2c", "--count-bonus.weight", "-1", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "error: count-bonus.weight: expected at least 0, got -1.0\n"
    assert not (tmp_path / "run").exists()


def test_tuning_reaches_the_options(tmp_path: Path) -> None:
    ranges = tmp_path / "ranges.toml"
    name = '"extras.count_bonus.weight"'
    ranges.write_text(f"only = [{name}]\n[{name}]\nlow = 0.01\nhigh = 1.0\nlog = true\n")
    config = rl.A2CConfig(extras=Extras())
    assert list(space_of(config, ranges)) == ["extras.count_bonus.weight"]
    changed = with_point(config, {"extras.count_bonus.weight": 0.5})
    assert changed.extras.count_bonus == CountBonus(0.5)
    assert as_flags(changed) == "--count-bonus.weight 0.5"
    assert "[extras.count_bonus]\nweight = 0.5\n" in as_toml(changed, "")
