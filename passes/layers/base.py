"""What a kind of layer is: all that passes ask about one op of the dialect."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from patc.passes.algorithms.base import Algorithm


class LayerKind(abc.ABC):
    """What patc knows of one op of the dialect. Passes ask it, and know no kind by name.

    Attributes:
        op: the class of the op.
        host, gpu: how CPUs and GPUs compute it, in the order in which candidates are listed.
    """

    op: ClassVar[type]
    host: ClassVar[tuple[Algorithm[Any], ...]]
    gpu: ClassVar[tuple[Algorithm[Any], ...]]
