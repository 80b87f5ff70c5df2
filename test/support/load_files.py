"""Load and call edited models, in a process of its own: a crash is seen, and by its last line, what caused it.

    python load_files.py FILES RESULT

FILES is a pickle of names and contents, the first of which is a good model. A line of JSON comes back for each other
one: its name, and the error that it got, or null where it loads and computes what the first one does. RESULT is where
the content goes to be loaded.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

import patc

files = pickle.loads(Path(sys.argv[1]).read_bytes())
place = Path(sys.argv[2])


def leaves(value: Any) -> list[Any]:
    """Return the arrays and constants of nested outputs."""
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in (key, *leaves(part))]
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, (list, tuple)) else [value]


def call(content: bytes) -> list[Any] | None:
    place.write_bytes(content)
    model = patc.load(place)
    # A model for a GPU is checked when it is loaded, and needs no device then.
    return None if model.program.target == "spirv-vulkan" else leaves(model(*model.random_inputs()))


names = iter(files)
wanted = call(files[next(names)])
for name in names:
    print(json.dumps(name), end=" ", flush=True)
    try:
        found = call(files[name])
    except patc.PatcError as error:
        print(json.dumps(str(error).removeprefix(f"{place}: ")), flush=True)
    else:
        same = found is wanted or all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))
        print("null" if same else '"wrong numbers"', flush=True)
