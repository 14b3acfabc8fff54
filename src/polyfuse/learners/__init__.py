"""Ways to learn the answer from cached Features in one go, without gradients."""

from __future__ import annotations

from polyfuse.core.registry import Registry
from polyfuse.learners.learner import Learner

LEARNERS: Registry[Learner] = Registry(
    "learners",
    {
        "linear": "polyfuse.learners.linear:LinearLearner",
        "boosting": "polyfuse.learners.boosting:BoostingLearner",
    },
)
