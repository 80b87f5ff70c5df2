"""torch.export without what it does again for each program, which is a tenth of what a small net takes to compile.

Programs stay the same; processes that tests start export as torch does. For each one torch looks all composite operations up, once for each namespace, and gives each of
them a dozen kernels by functions whose annotations are made anew.
"""

from __future__ import annotations

import typing
from collections.abc import Callable

import torch
from torch._export import utils


def hasten() -> None:
    """Let torch remember, in this process, which operations it has looked up and the types of annotations."""
    if hasattr(torch._ops, "Callable"):
        torch._ops.Callable = typing.Callable  # type: ignore[attr-defined] # torch imports it; this one remembers
    if hasattr(utils, "_materialize_cpp_cia_ops"):
        utils._materialize_cpp_cia_ops = _once_each(utils._materialize_cpp_cia_ops)


def _once_each(look_up_all: Callable[[], None]) -> Callable[[], None]:
    """Return a function that looks operations up where some have been registered since it was called last."""
    known: list[str] = []

    def look_up() -> None:
        found = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
        if known != found:
            look_up_all()
            known[:] = found

    return look_up
