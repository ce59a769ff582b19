"""How much memory a method takes on a base, told from configs before anything is loaded."""

from mnemon.planning.measuring import measured
from mnemon.planning.outline import Outline, known_sizes, outline
from mnemon.planning.plan import CARDS, ROOM, Estimate, Levers, Plan, cards

__all__ = [
    "CARDS",
    "ROOM",
    "Estimate",
    "Levers",
    "Outline",
    "Plan",
    "cards",
    "known_sizes",
    "measured",
    "outline",
]
