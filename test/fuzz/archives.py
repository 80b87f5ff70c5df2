"""Edits of zip archives, which .pt2 and .pth files are: of members as bytes, as JSON, or as pickles, and of their list."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile

import payloads
from edits import Edit, draw_bytes_edit, draw_json_edit, dump, edit_bytes, edit_json
from worker import MARKER

Members = list[tuple[str, bytes]]
_NAMES = ("", "/", "../../escaped", "/tmp/escaped", "a" * 300, "data.pkl", "p/data.pkl", "é\n", "p/models/model.json")
_EXPRESSIONS = (
    f"__import__('os').mkdir('{MARKER}')", "s0", "Symbol('s0')", "1/0", "9" * 400, "(" * 300 + ")" * 300, "x**x**x**9",
)  # fmt: skip
_TARGETS = (
    "os.system", "builtins.eval", "_operator.add", "torch.ops.aten.nothing.default", "torch.load", "torch.ops.aten.add",
    "subprocess.run", "torch.ops.os.system", "math.sqrt", "torch.sym_sqrt", "torch.ops.higher_order.cond", "operator.getitem",
)  # fmt: skip


def read(data: bytes) -> Members:
    """Return names and contents of an archive's members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def write(members: Members, compressed: bool = False) -> bytes:
    """Return an archive; names may come twice."""
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names that come twice
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def draw_edit(choices: random.Random, data: bytes) -> Edit:
    """Draw an edit of an archive."""
    members = read(data)
    texts = [name for name, content in members if name.endswith(".json")]
    kinds = ["raw"] * 2 + ["member"] * 3 + ["drop", "rename", "double", "swap", "payload", "payload", "bomb", "deflate"]
    kinds += (
        (["json"] * 10 + ["target", "expression", "pickled", "pickled"]) if texts else ["member"] * 4 + ["payload"] * 3
    )
    kind = choices.choice(kinds)
    name, content = choices.choice(members)
    if kind == "raw":
        return [kind, *draw_bytes_edit(choices, len(data))]
    if kind == "member":
        return [kind, name, *draw_bytes_edit(choices, len(content))]
    if kind == "json":
        name = choices.choice([*texts, *(text for text in texts if "model.json" in text)])
        odd = [
            {"as_expr": {"expr_str": _EXPRESSIONS[0], "hint": None}},
            {"as_int": 0},
            {"as_none": True},
            {"as_int": 1 << 40},
        ]
        return [kind, name, *draw_json_edit(choices, json.loads(dict(members)[name]), odd)]
    if kind == "rename":
        return [kind, name, choices.choice([*_NAMES, name + "x", name.rpartition("/")[2]])]
    if kind == "swap":
        return [kind, name, choices.choice(members)[0]]
    if kind == "payload":
        pickles = [name for name, _ in members if name.endswith((".pt", ".pkl"))]
        return [kind, choices.choice([name, *pickles, *pickles]), payloads.draw(choices)]
    if kind == "pickled":
        return [kind, choices.randrange(1000), payloads.draw(choices)]
    if kind == "target":
        return [kind, choices.randrange(1000), choices.choice(_TARGETS)]
    if kind == "expression":
        return [kind, choices.randrange(1000), choices.choice(_EXPRESSIONS)]
    return [kind, name]


def apply(data: bytes, edit: Edit) -> bytes:
    """Return an archive after an edit; what is none any more is edited as bytes only."""
    kind, *rest = edit
    if kind == "raw":
        return edit_bytes(data, rest)
    try:
        members = read(data)
    except Exception:  # damaged by an edit before
        return data
    if kind in ("pickled", "target", "expression"):
        return write(_edit_graph(members, kind, *rest))
    name, *arguments = rest
    return write(
        [pair for member in members for pair in _edit_member(member, kind, name, arguments, members)], kind == "deflate"
    )


def _edit_member(member: tuple[str, bytes], kind: str, name: str, arguments: list, members: Members) -> Members:
    own, content = member
    if own != name:
        return [member]
    if kind == "member":
        return [(own, edit_bytes(content, arguments))]
    if kind == "json":
        try:
            return [(own, dump(edit_json(json.loads(content), arguments)))]
        except ValueError:
            return [member]  # damaged by an edit before
    if kind == "rename":
        return [(arguments[0], content)]
    if kind == "swap":
        return [(own, dict(members).get(arguments[0], b""))]
    if kind == "payload":
        return [(own, payloads.make(arguments[0]))]
    if kind == "bomb":
        return [(own, bytes(50_000_000))]
    return {"drop": [], "double": [member, member]}.get(kind, [member])


def _edit_graph(members: Members, kind: str, number: int, argument: str) -> Members:
    """Edit a graph where it could name something to run: the n-th weight's pickle, call or symbolic size."""
    wanted = "weights_config.json" if kind == "pickled" else "models/model.json"
    name, text = next(((name, text) for name, text in members if name.endswith(wanted)), ("", b"{}"))
    try:
        value = json.loads(text)
        if kind == "pickled":
            return _pickle_weight(members, name, value, number, argument)
        if kind == "target":
            nodes = value["graph_module"]["graph"]["nodes"]
            nodes[number % len(nodes)]["target"] = argument
        else:
            tensors = value["graph_module"]["graph"]["tensor_values"]
            sizes = list(tensors.values())[number % len(tensors)]["sizes"]
            sizes[number % len(sizes)] = {"as_expr": {"expr_str": argument, "hint": {"as_int": 4}}}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError):
        return members  # damaged by an edit before
    return [(own, dump(value) if own == name else content) for own, content in members]


def _pickle_weight(members: Members, name: str, value: dict, number: int, payload: str) -> Members:
    weights = list(value["config"].values())
    weight = weights[number % len(weights)]
    weight["use_pickle"] = True
    place = f"{name.rpartition('/')[0]}/{weight['path_name']}"
    changed = {name: dump(value), place: payloads.make(payload)}
    return [(own, changed.get(own, content)) for own, content in members]


def runs_code(edits: list[Edit]) -> bool:
    """Return whether edits put something into a file that torch's own reader may run."""
    dangerous = {"payload", "pickled", "target", "expression"}
    return any(edit[0] in dangerous or MARKER in json.dumps(edit) or "os.system" in json.dumps(edit) for edit in edits)
