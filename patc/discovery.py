"""What the modules of a package define: a file in the right folder is all that makes a new thing known."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any


def implementations(registry: str, base: type) -> Iterator[Any]:
    """Yield the public subclasses of `base` that lack no method, of all modules beside a registry: by the modules'
    names, and in the order in which each of them defines them.

    Args:
        registry: the name of the module that asks; it is not looked at itself.
    """
    package = registry.rpartition(".")[0]
    for found in pkgutil.iter_modules(sys.modules[package].__path__, f"{package}."):
        if found.name == registry:
            continue
        for value in vars(importlib.import_module(found.name)).values():
            is_own = inspect.isclass(value) and value.__module__ == found.name and not value.__name__.startswith("_")
            if is_own and issubclass(value, base) and not inspect.isabstract(value):
                yield value
