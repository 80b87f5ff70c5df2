"""Files of the user's own Python code, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def run_file(path: Path) -> ModuleType:
    """Run a file that exists, named .py, and return it as a module. Raises whatever its code raises."""
    # Where its classes are looked up when they are copied; a file may be called as a module that is loaded.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_{abs(hash(str(path.resolve())))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("expected a file named .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
