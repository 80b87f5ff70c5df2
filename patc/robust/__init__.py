"""The worst of several cases: attacks that work on all of them, and training that keeps the one with the largest loss.

Cases, called domains, get weights from the probability simplex: those of the largest losses grow, while whatever is
optimised, a perturbation or a net, lowers the weighted sum (Wang et al., "Adversarial Attack Generation Empowered by
Min-Max Optimization", arXiv:1906.03563). `patc prune --domains` trains like that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patc.robust.attacks import Attack, Budget, attack_ensemble, attack_transforms, attack_universal
    from patc.robust.domains import DOMAINS, Domains
    from patc.robust.weights import DomainWeights, worst_case_loss

__all__ = [
    "DOMAINS",
    "Attack",
    "Budget",
    "DomainWeights",
    "Domains",
    "attack_ensemble",
    "attack_transforms",
    "attack_universal",
    "worst_case_loss",
]

_LAZY = {
    "DOMAINS": "domains",
    "Attack": "attacks",
    "Budget": "attacks",
    "DomainWeights": "weights",
    "Domains": "domains",
    "attack_ensemble": "attacks",
    "attack_transforms": "attacks",
    "attack_universal": "attacks",
    "worst_case_loss": "weights",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"patc.robust.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
