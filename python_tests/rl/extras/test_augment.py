"""Random shifts of images: crops beside a slow reference, DrQ's targets and loss, priorities, and resuming."""

from __future__ import annotations

import io
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compare_runs import same, same_runs
from image_worlds import SIDE, Recorded, Spot, spot_dqn

from automl_ext import rl
from automl_ext.cli import main
from automl_ext.ops.targets import categorical_projection
from automl_ext.rl.extras import Augment, Contrastive
from automl_ext.rl.extras.augment import RandomShift, mean_of_copies, shifted
from automl_ext.training.errors import UserError
from automl_ext.training.seeding import generator

LAYOUTS = {  # shape: axes of height and width
    (3, 12, 9): (-2, -1),
    (12, 9, 3): (-3, -2),
    (4, 12, 12): (-2, -1),
    (12, 12, 12): (-3, -2),
    (2, 12, 9, 3): (-3, -2),
}


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=generator(1), dtype=torch.uint8)


@pytest.mark.parametrize("shape", LAYOUTS, ids=str)
def test_shifts_equal_crops_of_padded_images(shape: tuple[int, ...]) -> None:
    x, most, axes = images(50, *shape), 3, LAYOUTS[shape]
    offsets = torch.randint(-most, most + 1, (2, 50), generator=generator(0))
    found = shifted(x, offsets, axes)
    assert (found.dtype, found.shape) == (torch.uint8, x.shape)
    height, width = (shape[axis] for axis in axes)
    for image, result, (row, column) in zip(x, found, offsets.T.tolist(), strict=True):
        planes, results = (y.movedim(axes, (-2, -1)).reshape(-1, height, width).numpy() for y in (image, result))
        for plane, one in zip(planes, results, strict=True):  # all frames and channels by the same offset
            padded = np.pad(plane, most, mode="edge")
            expected = padded[most + row :, most + column :][:height, :width]
            np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize("shape", LAYOUTS, ids=str)
def test_each_image_gets_a_shift_of_its_own(shape: tuple[int, ...]) -> None:
    shifts = RandomShift(shape, generator(0))
    assert (shifts.axes, shifts.most) == (LAYOUTS[shape], 1)
    x = images(*shape).expand(400, *shape)
    found = shifts(x)
    every = [shifted(x[:1], torch.tensor([[r], [c]]), shifts.axes)[0] for r in (-1, 0, 1) for c in (-1, 0, 1)]
    number = [sum(torch.equal(one, each) for one in found) for each in every]
    assert sum(number) == 400
    assert min(number) > 20


def test_shifts_are_four_pixels_of_84_in_proportion() -> None:
    sides = {84: 4, 64: 3, 36: 2, 10: 1, 7: 1, 160: 8}
    assert {side: RandomShift((4, side, side), generator(0)).most for side in sides} == sides


def gradient(agent: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in agent.online.parameters()])


@pytest.mark.parametrize("switches", [{}, {"double": True, "prioritized": True}, {"n_step": 3}], ids=str)
def test_targets_and_loss_are_averaged_over_two_shifts(switches: dict[str, Any]) -> None:
    """The gradient equals that of equations 1 to 3 of Kostrikov et al. 2021, computed from the same shifts."""
    agent = spot_dqn(Augment(), **switches)
    agent.seams.batch[0] = recorded = Recorded(agent.seams.batch[0])
    for p in agent.target.parameters():  # so that both networks differ
        p.data += 0.01 * torch.randn(p.shape, generator=generator(2))
    before = {name: p.detach().clone() for name, p in agent.online.state_dict().items()}
    if switches.get("prioritized"):
        agent.replay.update_priorities(agent.replay.sample(50).indices, torch.rand(50, generator=generator(3)))
    agent.update(1)
    found, batch, copies = gradient(agent), recorded.before, recorded.after
    for field in ("actions", "returns", "discounts", "terminated", "weights", "indices"):
        assert torch.equal(getattr(copies, field), torch.cat([getattr(batch, field)] * 2)), field
    for name in ("observations", "next_observations"):
        first, second = getattr(copies, name).chunk(2)
        assert not torch.equal(first, second), name
    assert len(batch.weights.unique()) > 1 or not switches.get("prioritized")
    agent.online.load_state_dict(before)
    targets, loss = [], torch.zeros(())
    with torch.no_grad():
        for following in copies.next_observations.chunk(2):
            chooser = agent.online if switches.get("double") else agent.target
            best = chooser(following).argmax(1, keepdim=True)
            targets.append(batch.returns + batch.discounts * agent.target(following).gather(1, best).squeeze(1))
    y = (targets[0] + targets[1]) / 2
    for observations in copies.observations.chunk(2):
        q = agent.online(observations).gather(1, batch.actions[:, None]).squeeze(1)
        loss = loss + (batch.weights * F.smooth_l1_loss(q, y, reduction="none")).mean() / 2
    expected = torch.autograd.grad(loss, list(agent.online.parameters()))
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]), rtol=1e-4, atol=1e-6)


def test_target_distributions_are_averaged() -> None:
    agent = spot_dqn(Augment(), distributional=True, atoms=11)
    agent.seams.batch[0] = recorded = Recorded(agent.seams.batch[0])
    steps: list[torch.Tensor] = []
    step = agent.step
    agent.step = lambda batch, targets: steps.append(targets) or step(batch, targets)  # type: ignore[method-assign,assignment,func-returns-value]
    target = [p.detach().clone() for p in agent.target.parameters()]
    agent.update(1)
    assert all(torch.equal(a, b) for a, b in zip(target, agent.target.parameters(), strict=True))
    batch, each = recorded.before, []
    for following in recorded.after.next_observations.chunk(2):
        logits = agent.target(following)
        probs = logits.softmax(-1)
        best = probs[range(8), (probs @ agent.target.support).argmax(1)]
        each.append(categorical_projection(best, batch.returns, batch.terminated, batch.discounts, 0.0, 5.0))
    torch.testing.assert_close(steps[0], torch.cat([(each[0] + each[1]) / 2] * 2))
    torch.testing.assert_close(steps[0].sum(1), torch.ones(16))


def test_the_mean_of_copies_is_that_of_equal_transitions() -> None:
    assert mean_of_copies(torch.tensor([1.0, 2, 3, 5, 4, 7])).tolist() == [3, 3, 5, 3, 3, 5]


def test_a_priority_is_the_mean_error_of_the_copies() -> None:
    agent = spot_dqn(Augment(), prioritized=True)
    given: list[tuple[torch.Tensor, torch.Tensor]] = []
    agent.replay.update_priorities = lambda *values: given.append(values)  # type: ignore[attr-defined]
    step, errors = agent.step, torch.arange(16.0)
    agent.step = lambda batch, targets: (step(batch, targets)[0], errors, {})  # type: ignore[method-assign]
    agent.update(1)
    ((indices, priorities),) = given
    assert torch.equal(indices[:8], indices[8:])
    assert priorities.tolist() == [4 + i for i in range(8)] * 2


def test_stacks_of_single_frames_are_shifted_alike() -> None:
    agent = spot_dqn(Augment(), stack=3, layout=(SIDE, SIDE), n_step=2, prioritized=True)
    assert agent.replay._ring.frame_stack == 3
    agent.seams.batch[0] = recorded = Recorded(agent.seams.batch[0])
    agent.update(1)
    before, after = recorded.before.observations, recorded.after.observations
    assert before.shape == (8, 3, SIDE, SIDE)
    ways = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    for i, stack in enumerate(after):
        crops = [shifted(before[i % 8][None], torch.tensor(way)[:, None], (-2, -1))[0] for way in ways]
        assert any(torch.equal(stack, crop) for crop in crops)
    agent.iterate()


SWITCHES = [{}, {"prioritized": True, "n_step": 3, "double": True}, {"distributional": True, "noisy": True}]


@pytest.mark.parametrize("switches", [*SWITCHES, {"rainbow": True, "stack": 2}], ids=str)
@pytest.mark.parametrize("extras", [(Augment(),), (Contrastive(),), (Augment(), Contrastive())], ids=len)
def test_resumed_updates_equal_uninterrupted_ones(extras: tuple[Any, ...], switches: dict[str, Any]) -> None:
    agent = spot_dqn(*extras, **switches)
    agent.update(2)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other = spot_dqn(*extras, **switches)
    other.load_state_dict(torch.load(file, weights_only=True))
    for one in (agent, other):
        one.update(2)
    states = agent.state_dict(), other.state_dict()
    for state in states:
        del state["envs"]  # another process has no state of these environments, and starts new episodes
    same(*states)
    assert states[0]["extras"].keys() == {extra.name for extra in extras}


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    flags = ["train", "dqn", "--pixels", "--frame-stack", "2", "--augment", "shift", "--contrastive.weight", "1"]
    flags += ["--prioritized", "--distributional", "--total-steps", "90", "--learning-starts", "20", "--hidden", "16"]
    flags += ["--train-freq", "10", "--gradient-steps", "2", "--batch-size", "8", "--buffer-size", "70"]
    flags += ["--eval-every", "45", "--eval-episodes", "1", "--final-episodes", "1", "--eval-max-steps", "5"]
    flags += ["--checkpoint-every", "20"]
    assert main([*flags, "--out", str(tmp_path / "whole")]) == 0
    assert main([*flags, "--out", str(tmp_path / "halted"), "--stop-after", "50"]) == 0
    assert not (tmp_path / "halted/result.json").exists()
    assert main([*flags, "--out", str(tmp_path / "halted"), "--resume", "auto"]) == 0
    same_runs(tmp_path / "whole", tmp_path / "halted", {"updates_per_second"})


@pytest.mark.parametrize("extra", [Augment(), Contrastive()], ids=lambda extra: extra.name)
def test_agents_and_observations_without_images_are_refused(
    extra: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = "--augment=shift" if isinstance(extra, Augment) else "--contrastive.weight=1"
    for command, env in (("dqn", "CartPole-v1"), ("rainbow", "Taxi-v4"), ("ppo", "CartPole-v1")):
        assert main(["train", command, "--env-id", env, flag, "--out", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {extra.name}: ")
        assert error.count("\n") == 1
        assert ("expected images" in error, "expected arrays" in error) == (
            env == "CartPole-v1" and command == "dqn",
            env == "Taxi-v4",
        )
        assert command != "ppo" or "not possible with ppo, which has no" in error
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=f"^{extra.name}: not possible with vdn"):
        rl.make("vdn", extras=[extra])
    with pytest.raises(UserError, match=f"^{extra.name}: expected once, got it twice"):
        spot_dqn(extra).attach(extra)


def test_other_augmentations_are_refused() -> None:
    with pytest.raises(ValueError, match="augment: expected 'shift' or None, got 'rotate'"):
        Augment("rotate")  # type: ignore[arg-type]


def test_an_agent_learns_with_both_and_is_loaded_with_them(tmp_path: Path) -> None:
    """The values are those without shifts: 1 for the half of the spot, plus what follows."""
    options: dict[str, Any] = {"batch_size": 32, "lr": 3e-3, "gamma": 0.0, "target_update_interval": 50}
    agent = spot_dqn(Augment(), Contrastive(0.1), **options)
    while agent.updates < 60:
        agent.iterate()
    env, right = Spot(), 0
    seen, _ = env.reset(seed=3)
    for _ in range(50):
        action = agent.act(seen[None])[0]
        seen, reward, *_ = env.step(action)
        right += reward
    assert right == 50  # 25 at random
    loaded = rl.load(agent.save(tmp_path / "agent.pt"))
    assert loaded.config.extras == agent.config.extras
    assert all(getattr(loaded.config.extras, f.name) is not None for f in fields(loaded.config.extras))
