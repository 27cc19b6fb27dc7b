"""Instruction constraints as verifiable rewards: checkers of our own for rows in IFEval's layout, and the reward made of them.

The kinds of instruction are those of Zhou et al. 2023 (arXiv:2311.07911), implemented from their meaning, and as many of our own; `CHECKERS`
lists them all, each with a sentence that says what it decides.
"""

from accord.rewards.constraints.base import CHECKERS, Checker, Constraint, constraints_of
from accord.rewards.constraints.relations import RELATIONS
from accord.rewards.constraints.reward import ConstraintReward, check_rows, constraints
from accord.rewards.constraints.verdicts import Verdict, judge, loose_variants

__all__ = [
    "CHECKERS",
    "RELATIONS",
    "Checker",
    "Constraint",
    "ConstraintReward",
    "Verdict",
    "check_rows",
    "constraints",
    "constraints_of",
    "judge",
    "loose_variants",
]
