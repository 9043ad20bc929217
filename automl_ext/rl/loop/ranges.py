"""Values that a tuner tries for options which several algorithms have, as in RL Baselines3 Zoo."""

from __future__ import annotations

from automl_ext.training.search_space import Categories

GAMMAS = Categories(0.9, 0.95, 0.98, 0.99, 0.995, 0.999)  # discount factor
LAMBDAS = Categories(0.8, 0.9, 0.95, 0.98, 0.99, 1.0)  # λ of generalized advantage estimation
