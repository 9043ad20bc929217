"""The names of scalars in TensorBoard, grouped as in Stable-Baselines3. ``metrics.jsonl`` has the plain names."""

from __future__ import annotations

TAGS = {
    # reinforcement learning
    "episode_return": "rollout/ep_rew_mean",
    "episode_length": "rollout/ep_len_mean",
    "epsilon": "rollout/exploration_rate",
    "eval_return": "eval/mean_reward",
    "eval_episodes_cut": "eval/episodes_cut",
    "steps_per_second": "time/fps",
    # search strategies; a score is measured on validation data
    "score": "valid/score",
    "best_score": "valid/best_score",
    "cost": "search/cost",
    "budget": "search/budget",
    "failed": "search/failed",
}
GROUPS = ("valid", "test", "train")


def tag(name: str) -> str:
    """Return the name of a scalar in TensorBoard.

    :data:`TAGS` has the names of some scalars. If another name contains the name of a group as a word, the scalar goes
    to this group and the word is dropped: ``retrain_valid_accuracy`` becomes ``valid/retrain_accuracy``. Times go to
    ``time/``, everything else to ``train/``.
    """
    if name in TAGS:
        return TAGS[name]
    if name.startswith("eval_return/"):  # of an agent or a task
        return f"eval/mean_reward/{name.partition('/')[2]}"
    words = name.split("_")
    for group in GROUPS:
        if group in words:
            words.remove(group)
            return f"{group}/{'_'.join(words) or group}"
    return f"{'time' if 'seconds' in words else 'train'}/{name}"
