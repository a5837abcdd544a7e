"""Programs that torch.export wrote, read without running code from the file.

`torch.export.load` may unpickle anything, loads compiled libraries, evaluates expressions and resolves names of
functions that a file holds. So a file is checked first: it may hold tensors and a graph of torch's own operators, and
nothing else. Whatever this file does not know is refused.
"""

import ast
import hashlib
import io
import json
import re
import zipfile
from typing import Any

import torch
from torch import nn
from torch.export.passes import move_to_device_pass

EXPORT_ADVICE = (
    "export it: torch.export.save(torch.export.export(model.eval(), (images,), "
    "dynamic_shapes=({0: torch.export.Dim.AUTO},)), 'program.pt2')"
)

_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.format_version|\.storage_alignment|\.data/(version|serialization_id)"
    r"|models/model\.json|data/(sample_inputs|weights|constants)/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
)
"""Files of an archive without own classes and compiled libraries, as torch 2.8 or newer writes it."""
_GRAPH = "models/model.json"
_PICKLES = ("data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt")
"""The last two: of torch 2.8, in place of the payloads."""
_PAYLOADS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+|torch\.sym_(int|float|max|min|not|ite|sum)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(floor|ceil|trunc|sqrt)"
)
_FILE_OPERATORS = re.compile(r"torch\.ops\.aten\.from_file\b.*")  # opens any path
_LEAVE_OUT = "torch.no_grad, torch.autocast, conditions, loops and operators of other packages"
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_PLAIN_TEXT = re.compile(r"[^'\"\\\x00-\x1f]*")
_EXPRESSION_FUNCTIONS = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Abs|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Equality|Unequality|LessThan"
    "|StrictLessThan|GreaterThan|StrictGreaterThan|Piecewise|ExprCondPair|floor|ceiling|sqrt|FloorDiv|CeilDiv|CleanDiv"
    "|ModularIndexing|Where|PythonMod|Mod|CeilToInt|FloorToInt|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv"
    "|IntTrueDiv|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat|Identity"
)
_EXPRESSION_NODES = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.Tuple, ast.BinOp, ast.UnaryOp,
    ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_REFERENCES = ("as_graph", "as_custom_obj", "as_operator")
"""Arguments of a graph that name a further graph, an object or a function."""


def load_program(data: bytes, role: str, *, device: str = "cpu") -> nn.Module:
    """The program of a .pt2 file with content `data`, computing on `device`; it runs only operators of torch.

    `role` starts the text of errors ("a classifier's program"). Raises ValueError for anything that torch.export.save
    did not write, and for a program that holds more than tensors and torch's own operators.
    """
    try:
        _check_archive(data)
        # Guards of the file are Python code, which is not run; the shapes of inputs are checked all the same.
        exported = torch.export.load(io.BytesIO(data))
        if device != "cpu":  # Module.to would leave tensors that the graph makes where they were at export
            exported = move_to_device_pass(exported, device)
        return exported.module(check_guards=False)
    except _RefusedProgram as error:
        raise ValueError(f"{role} must hold tensors and torch's own operators only, but {error}") from error
    except Exception as error:  # a broken archive can make the reader raise anything
        raise ValueError(
            f"{role} must be what torch.export.save wrote, but {len(data)} bytes cannot be read: "
            f"{type(error).__name__}: {error}"
        ) from error


def program_digest(data: bytes) -> str:
    """SHA-256 of a program's file, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class _RefusedProgram(Exception):
    """The program holds what this file does not allow; the text says what, and what to do."""


def _refuse_unless(condition: bool, text: str) -> None:
    if not condition:
        raise _RefusedProgram(text)


# --- the archive ------------------------------------------------------------------------------------------------------


def _check_archive(data: bytes) -> None:
    """Raise _RefusedProgram unless the zip file `data` holds only known members, and those only data."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
        roots = {name.partition("/")[0] for name in archive.namelist()}
    _refuse_unless(len(roots) == 1, f"its members are in {len(roots)} folders: {EXPORT_ADVICE}")
    torchscript = any(name.startswith("code/") or name == "constants.pkl" for name in names)
    _refuse_unless(not torchscript, f"it is a TorchScript program, which can run code: {EXPORT_ADVICE}")
    _refuse_unless("data.pkl" not in names, f"it holds weights that torch.save wrote: load them, {EXPORT_ADVICE}")
    unknown = sorted(name for name in names if not _MEMBERS.fullmatch(name))
    _refuse_unless(not unknown, f"it has the member {unknown[:1]}: {EXPORT_ADVICE} with torch 2.8 or newer")
    _refuse_unless(len(set(names)) == len(names), f"it has members twice: {EXPORT_ADVICE}")
    # From here on the reader that torch.export.load uses, so that what is checked is what is loaded.
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))  # type: ignore[call-arg, arg-type]
    read = {name: reader.get_record(name) for name in (_GRAPH, *_PICKLES, *_PAYLOADS) if name in names}
    listed = {name.replace("\\", "/") for name in reader.get_all_records()}
    _refuse_unless(listed <= set(names), f"its list of members is ambiguous: {EXPORT_ADVICE}")
    for name, content in read.items():
        if name in _PICKLES:
            _check_pickle(name, content)
        elif name in _PAYLOADS:
            _check_payload(json.loads(content))
    _check_graph(json.loads(read[_GRAPH]))


def _check_payload(payload: dict[str, Any]) -> None:
    """Tensors must lie there as bytes, in the members that the archive's check allows."""
    for name, tensor in payload["config"].items():
        pickled = tensor["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", tensor["path_name"])
        _refuse_unless(not pickled, f"its tensor {name!r} is pickled: make it a plain tensor of the model")


def _check_pickle(name: str, data: bytes) -> None:
    """Where reading as tensors fails, torch.export.load unpickles without limits."""
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:
        raise _RefusedProgram(
            f"its member {name} holds more than tensors ({type(error).__name__}): export it with tensors as inputs"
        ) from error


# --- the graph --------------------------------------------------------------------------------------------------------


def _check_graph(program: dict[str, Any]) -> None:
    """Raise _RefusedProgram unless all that torch evaluates, resolves or writes into code is harmless."""
    for call in program["graph_module"]["module_call_graph"]:
        for name in ("in_spec", "out_spec") if call["signature"] else ():
            _check_tree(json.loads(call["signature"].pop(name))[1])
    program.pop("guards_code", None)  # never run
    _check_value(program, "program")


def _check_value(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _check_text(name, "a name")
            if name == "metadata":  # for people: traces and names of modules
                continue
            _refuse_unless(
                name not in _REFERENCES or item is None,
                f"it has an argument {name!r}: leave {_LEAVE_OUT} out of forward",
            )
            _check_value(item, name)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key == "target":
        allowed = _OPERATORS.fullmatch(text) and not _FILE_OPERATORS.fullmatch(text)
        _refuse_unless(bool(allowed), f"it calls {text!r}: leave {_LEAVE_OUT} out of forward")
    elif key == "expr_str":
        _check_expression(text)
    elif key in ("name", "forward_arg_names"):
        _refuse_unless(not text or bool(_IDENTIFIER.fullmatch(text)), f"it has the name {text!r}: {EXPORT_ADVICE}")
    elif key != "as_string":  # written into code as a Python literal
        _refuse_unless(bool(_PLAIN_TEXT.fullmatch(text)), f"it has the text {text!r} as {key}: {EXPORT_ADVICE}")


def _check_expression(text: str) -> None:
    """sympy evaluates the expression of a size: arithmetic on symbols only."""
    refusal = f"it has a size {text!r}, which is no arithmetic on sizes: {EXPORT_ADVICE}"
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _RefusedProgram(refusal) from error
    for node in nodes:
        _refuse_unless(isinstance(node, _EXPRESSION_NODES), refusal)
        if isinstance(node, ast.Call):
            called = isinstance(node.func, ast.Name) and bool(_EXPRESSION_FUNCTIONS.fullmatch(node.func.id))
            _refuse_unless(called, refusal)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            _refuse_unless(bool(re.fullmatch(r"[\w.+-]*", node.value)), refusal)


def _check_tree(tree: dict[str, Any]) -> None:
    """How inputs and outputs are nested: tuples, lists and dictionaries by name."""
    allowed = tree["type"] in _TREE_TYPES
    _refuse_unless(allowed, f"it takes or gives a {tree['type']!r}: use tensors, tuples, lists or dictionaries")
    keys = json.loads(tree["context"] or "null") or []
    named = isinstance(keys, list) and all(isinstance(key, str) and _IDENTIFIER.fullmatch(key) for key in keys)
    _refuse_unless(named, f"it has inputs or outputs named {keys!r}: use Python names")
    for child in tree["children_spec"]:
        _check_tree(child)
