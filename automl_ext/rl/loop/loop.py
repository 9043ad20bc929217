"""The training loop of all agents: iterate, evaluate, log, keep the best policy, save, and resume."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from automl_ext.rl.envs.guard import EnvError
from automl_ext.rl.loop.averages import Averages
from automl_ext.rl.loop.evaluate import by_group, play_policy
from automl_ext.rl.loop.saved import check_saveable
from automl_ext.training.ctrl_c import CtrlC
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint
from automl_ext.training.files.weights import check_fit, write_tensors
from automl_ext.training.machine.clock import Clock
from automl_ext.training.machine.memory import keep_freed_memory
from automl_ext.training.progress import Progress
from automl_ext.training.run import CHECKPOINTS, Run
from automl_ext.training.seeding import derived_seed

BEST = "best.pt"  # the best evaluated policy so far: {step, return, policy}


@dataclass
class Report:
    """The argument of a callback, which is called after each evaluation.

    Attributes:
        step: number of training steps so far, over all environments.
        total_steps: number of steps at which training ends.
        eval_return: mean return of the evaluation; ``eval_returns`` has the return of each episode, [eval_episodes].
        best_return: mean return of the best evaluation so far, this one included.
        metrics: means of the measurements since the last evaluation, as in ``metrics.jsonl``: ``episode_return`` and
            ``episode_length`` of training episodes, losses.
        agent: the :class:`~automl_ext.rl.loop.agent.Agent`.
    """

    step: int
    total_steps: int
    eval_return: float
    eval_returns: np.ndarray
    best_return: float
    metrics: dict[str, float]
    agent: Any


Callback = Callable[[Report], bool | None]  # False ends the training


def train(
    build: Callable[[Any], Any],
    config: Any,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
) -> dict[str, Any] | None:
    """Train an agent inside a run directory.

    Args:
        build: makes the agent from the configuration: its class, or a function.
        config: a :class:`~automl_ext.rl.loop.train_config.TrainConfig`.
        out, resume: see :meth:`automl_ext.training.run.Run.open`.
        stop_after: stop, with a checkpoint, after this number of steps of this call.

    Returns:
        The content of ``result.json``; None when stopped. ``eval_return_*`` belong to the last policy and
        ``best_eval_return`` to the best policy. Both are evaluated on the same ``final_episodes`` new episodes. The
        best policy is the one with the best evaluation during training, or the last one if its mean on the new episodes
        is at least as high. ``seconds``, ``cpu_seconds``, ``steps_per_second`` and ``updates_per_second`` measure
        acting and learning without evaluation. ``updates`` and ``updates_per_second`` exist if the agent counts its
        updates; ``training_step``, if the algorithm has steps in one call, says which steps it takes.

    Raises:
        UserError: a wrong configuration or run directory, or losses that are not finite.
        EnvError: an environment failed, see :meth:`automl_ext.rl.envs.vector.Envs.step`. A failure before training
            leaves no run directory. Later the last checkpoint is kept, and the message names it.
    """
    agent = build(config)  # before the run directory is created, because it may raise an error
    try:
        agent.prepare(has_checkpoint(out, resume))
        return Training(agent, config).run_in(out, resume, stop_after)
    finally:
        agent.envs.close()


def has_checkpoint(out: str | Path | None, resume: str | None) -> bool:
    """Return whether a run is to resume from a checkpoint: the one that ``resume`` names, or one of ``out``."""
    if resume is None or out is None:
        return False
    return resume != "auto" or bool(checkpoint.list_steps(Path(out) / CHECKPOINTS))


def multiples(after: int, until: int, every: int) -> int:
    """Return the number of multiples of ``every`` in (after, until]."""
    return max(until // every - after // every, 0)


def kept(run: Path) -> str:
    """Describe the checkpoint from which a failed run can be resumed."""
    steps = checkpoint.list_steps(run / CHECKPOINTS)
    if not steps:
        return "no checkpoint was saved yet: --resume auto starts from the beginning"
    return f"the checkpoint of step {checkpoint.step_of(steps[-1])} is kept: --resume auto continues from it"


class Training:
    """Trains an agent in a run: runs iterations, and evaluations and checkpoints when due.

    Attributes:
        run: the run to write into, set by :meth:`run_in`. None: nothing is written.
        stopped: whether the callback has ended the training.
    """

    def __init__(self, agent: Any, config: Any, callback: Callback | None = None) -> None:
        self.agent, self.config, self.callback = agent, config, callback
        self.run: Run | None = None
        self.stopped = False
        # The clock does not measure the steps and updates that the agent did before.
        self.start, self.start_updates = agent.envs.steps, agent.updates or 0
        self.averages, self.clock = Averages(), Clock()
        self.best: dict[str, Any] = {"step": -1, "return": -float("inf"), "policy": None}
        self.saved = -1  # number of steps at the last checkpoint
        self.groups: tuple[str, ...] = ("",)  # agents or tasks of the last evaluation
        self.cut = 0  # number of episodes of the last evaluation that were truncated at eval_max_steps

    def run_in(
        self, out: str | Path | None, resume: str | None = None, stop_after: int | None = None
    ) -> dict[str, Any] | None:
        """Train in the run directory ``out``, or without one; see :func:`train`."""
        keep_freed_memory()
        if out is None:
            return self.complete(stop_after)
        resuming = has_checkpoint(out, resume)
        check_saveable(self.agent.policy_state(), "policy_state()")
        check_saveable(self.agent.state_dict(), "state_dict()")
        with Run.open(
            out, self.config, algorithm=self.agent.algorithm, resume=resume, load=self.load_state_dict
        ) as run:
            self.run = run
            if resuming and self.saved < 0:  # every checkpoint is damaged: training starts from the beginning
                self.agent.prepare()
            if self.best["policy"] is None:  # the best policy may be newer than the checkpoint
                (run.path / BEST).unlink(missing_ok=True)
            else:
                write_tensors(run.path / BEST, self.best)
            try:
                result = self.complete(stop_after)
            except EnvError as error:
                raise EnvError(f"{error}; {kept(run.path)}") from None
            except KeyboardInterrupt:
                raise KeyboardInterrupt(kept(run.path)) from None
            if result is not None:
                run.finish(result)
            return result

    def complete(self, stop_after: int | None = None) -> dict[str, Any] | None:
        """Train to the end and return the result; return None after ``stop_after`` steps, with a checkpoint.

        Raises:
            KeyboardInterrupt: Ctrl-C, after the end of the iteration and with a checkpoint.
        """
        envs, config = self.agent.envs, self.config
        stop_at = np.inf if stop_after is None else envs.steps + stop_after
        progress = Progress if self.run is None else self.run.progress
        with progress(config.total_steps, self.agent.algorithm, start=envs.steps) as bar, CtrlC() as ctrl_c:
            while envs.steps < config.total_steps and not self.stopped:
                if envs.steps >= stop_at:
                    self.save()
                    return None
                if ctrl_c.requested:
                    self.save()
                    raise KeyboardInterrupt
                bar.advance(self.iterate(), self.agent.algorithm)
        if self.agent.updates == 0 and not self.stopped:
            delay = "prefill" if hasattr(config, "prefill") else "learning_starts"
            warnings.warn(
                f"nothing was learned: training ended after {envs.steps} steps, before the first gradient step; "
                f"{delay} = {getattr(config, delay, 0)} delays it",
                stacklevel=2,
            )
        return self.result()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        best = state["best"]
        check_fit({"step": best["step"], "return": best["return"]}, {"step": 0, "return": 0.0}, "best")
        if best["policy"] is not None:
            check_fit(best["policy"], self.agent.policy_state(), "best policy")
        self.averages.load(state["sums"], state["counts"])
        self.agent.load_state_dict(state["agent"])
        self.best, self.saved = best, self.agent.envs.steps
        self.clock.wall, self.clock.cpu = state["clock"]
        self.start, self.start_updates = state["start"]

    def iterate(self) -> int:
        """Run one iteration, then the evaluation and the checkpoint that are due. Return the number of steps done."""
        envs, config = self.agent.envs, self.config
        before = envs.steps
        with self.clock:
            measured = self.agent.iterate()
        self.clock.cpu += measured.pop("cpu_seconds", 0.0)  # CPU time of the agent's other processes
        self.averages.add(measured)
        for episode in envs.episodes:
            self.averages.add({"episode_return": episode.episode_return, "episode_length": episode.length})
        envs.episodes.clear()

        def due(every: int) -> bool:
            return multiples(before, envs.steps, every) > 0 or envs.steps >= config.total_steps

        if due(config.eval_every):
            self.evaluate()
        if due(config.checkpoint_every) or self.stopped:
            self.save()
        return envs.steps - before

    def evaluate(self) -> None:
        """Evaluate the policy, log, and keep the policy if it is the best so far."""
        self.check_finite()
        means = self.averages.take()
        steps, config = self.agent.envs.steps, self.config
        returns = self.returns(config.eval_episodes, number=steps)
        if self.cut:
            means["eval_episodes_cut"] = self.cut
        means |= by_group(returns, self.groups)
        if self.run is not None:
            self.run.log(steps, eval_return=returns.mean(), **means)
            self.run.chart(steps, steps_per_second=self.speed)
        if returns.mean() >= self.best["return"]:  # if equal, keep the later policy, which has learned longer
            self.keep_best(returns)
        if self.callback is not None:
            best, total = self.best["return"], config.total_steps
            report = Report(steps, total, float(returns.mean()), returns, best, means, self.agent)
            self.stopped = self.callback(report) is False

    @property
    def speed(self) -> float:
        """Steps per second of acting and learning."""
        return (self.agent.envs.steps - self.start) / max(self.clock.wall, 1e-9)

    def keep_best(self, returns: np.ndarray) -> None:
        """Store the current policy as the best one, with its returns."""
        policy = copy.deepcopy(self.agent.policy_state())
        self.best = {"step": self.agent.envs.steps, "return": float(returns.mean()), "policy": policy}
        if self.run is not None:
            write_tensors(self.run.path / BEST, self.best)

    def returns(self, episodes: int, number: int) -> np.ndarray:
        """Return the returns of the current policy, [episodes].

        The environments' seed is derived from the run's seed and ``number``, so evaluation has no state to save.
        """
        seed = derived_seed(self.config.seed, number)
        (returns, self.cut), self.groups = play_policy(self.agent, self.config, episodes, seed)
        return returns

    def check_finite(self) -> None:
        """Raise UserError if training has diverged, before a diverged state is saved."""
        bad = [f"{name} {value}" for name, value in self.averages.means().items() if not np.isfinite(value)]
        bad = bad or [f"{name} is not finite" for name in not_finite(self.agent.policy_state(), "policy")]
        if bad:
            steps = self.agent.envs.steps
            rest = "" if self.run is None else f"; {kept(self.run.path)}"
            raise UserError(f"diverged before step {steps}: {', '.join(bad[:5])}{rest}")

    def save(self) -> None:
        """Write a checkpoint unless this step has one."""
        steps = self.agent.envs.steps
        if self.run is None or steps == self.saved:
            return
        self.check_finite()
        state = {
            "agent": self.agent.state_dict(),
            "sums": self.averages.sums,
            "counts": self.averages.counts,
            "best": self.best,
            "clock": (self.clock.wall, self.clock.cpu),
            "start": (self.start, self.start_updates),
        }
        self.run.save(steps, state)
        self.saved = steps

    def result(self) -> dict[str, Any]:
        """Evaluate the last and the best policy on the same ``final_episodes`` new episodes.

        The best policy was chosen by few episodes, so the last one replaces it if its mean is at least as high on
        these.
        """
        steps, episodes = self.agent.envs.steps, self.config.final_episodes
        last, cut = self.returns(episodes, number=0), self.cut
        policy = copy.deepcopy(self.agent.policy_state())
        self.agent.load_policy_state(self.best["policy"])
        best, best_cut = self.returns(episodes, number=0), self.cut
        self.agent.load_policy_state(policy)
        if last.mean() >= best.mean():
            self.keep_best(last)
            best, best_cut = last, cut
        result = {
            "eval_return_mean": float(last.mean()),
            "eval_return_std": float(last.std()),
            "best_eval_return": float(best.mean()),
            "best_step": self.best["step"],
            **by_group(last, self.groups),
            "episodes_cut": cut,  # in the evaluation of the last policy
            "best_episodes_cut": best_cut,
            "env_steps": steps,
            "seconds": self.clock.wall,
            "cpu_seconds": self.clock.cpu,
            "steps_per_second": self.speed,
        }
        if steps < self.config.total_steps:  # the callback ended the training
            result["stopped_early"] = True
        updates = self.agent.updates
        if updates is not None:
            speed = (updates - self.start_updates) / max(self.clock.wall, 1e-9)
            result |= {"updates": updates, "updates_per_second": speed}
        if hasattr(self.agent, "fused"):
            result["training_step"] = "fused" if self.agent.fused() else "composed"
        return result


def not_finite(state: Any, key: str) -> Iterator[str]:
    """Yield the keys of tensors with NaN or infinity in a nested state."""
    if isinstance(state, dict):
        for name, value in state.items():
            yield from not_finite(value, f"{key}.{name}")
    elif isinstance(state, Tensor) and state.is_floating_point() and not state.isfinite().all():
        yield key
