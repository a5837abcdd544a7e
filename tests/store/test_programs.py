"""Programs are read without running code from the file; each hostile file does run code in torch's own reader."""

import contextlib
import io
import json
import pickle
import zipfile

import pytest
import torch
from torch import nn

from components.store.programs import load_program, program_digest

GRAPH, SAMPLES = "archive/models/model.json", "archive/data/sample_inputs/model.pt"
CONSTANTS = "archive/data/constants/model_constants_config.json"
ROLE = "a test's program"


class Model(nn.Module):
    """A program with sizes as expressions, a constant and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Conv2d(3, 4, 3)
        self.scale = torch.full((4,), 2.0)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.layers(images).mean(dim=(2, 3)) * self.scale
        return features, features.flatten(0)[: images.shape[0] + images.shape[2]]


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Model().eval()


@pytest.fixture(scope="module")
def data(model):
    sizes = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=sizes), file)
    return file.getvalue()


def changed(data: bytes, **members) -> bytes:
    """The archive with some members replaced or added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name, members.get(name, source.read(name)))
        for name in members.keys() - set(source.namelist()):
            target.writestr(name, members[name])
    return out.getvalue()


def with_graph(data: bytes, edit) -> bytes:
    """The archive whose graph, a JSON object, `edit` has changed in place."""
    program = json.loads(zipfile.ZipFile(io.BytesIO(data)).read(GRAPH))
    edit(program)
    return changed(data, **{GRAPH: json.dumps(program)})


def write_marker(path) -> str:
    """A Python expression that creates a file."""
    return f"__import__('pathlib').Path('{path}').touch()"


def with_samples(data, path):
    file = io.BytesIO()
    torch.save(((Marker(path),), {}), file)
    return changed(data, **{SAMPLES: file.getvalue()})


def with_weights_of_torch_2_8(data, weights):
    """Weights as one pickled dictionary in place of the payload of single tensors."""
    file = io.BytesIO()
    torch.save(weights, file)
    return changed(data, **{"archive/data/weights/model.pt": file.getvalue()})


def with_weights(data, path):
    return with_weights_of_torch_2_8(data, {"layers.weight": Marker(path)})


def with_opaque_object(data, path):
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = json.loads(zipfile.ZipFile(io.BytesIO(data)).read(CONSTANTS))
    config["config"]["marker"] = entry
    opaque = {"archive/data/constants/opaque_obj_0": pickle.dumps(Marker(path))}
    return changed(data, **{CONSTANTS: json.dumps(config), **opaque})


def with_pickled_tensor(data, path):
    config = json.loads(zipfile.ZipFile(io.BytesIO(data)).read(CONSTANTS))
    (name,) = config["config"]
    config["config"][name] |= {"use_pickle": True, "tensor_meta": None}
    file = io.BytesIO()
    torch.save(Marker(path), file)
    return changed(data, **{CONSTANTS: json.dumps(config), "archive/data/constants/tensor_0": file.getvalue()})


def with_expression(data, path):
    def edit(program):
        sizes = program["graph_module"]["graph"]["tensor_values"]["images"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = write_marker(path)

    return with_graph(data, edit)


def with_guard(data, path):
    return with_graph(data, lambda program: program.update(guards_code=[f"{write_marker(path)} is None"]))


HOSTILE = [with_samples, with_weights, with_opaque_object, with_pickled_tensor, with_expression]


def run_in_torch(data: bytes) -> None:
    """What torch's own reader does with a file."""
    with contextlib.suppress(Exception):
        torch.export.load(io.BytesIO(data)).module()(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("size", [(1, 8), (5, 8), (2, 12)])
def test_a_program_computes_what_its_network_does(model, data, size):
    count, side = size
    images = torch.rand(count, 3, side, side)
    for got, wanted in zip(load_program(data, ROLE)(images), model(images), strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_program_of_torch_2_8_is_read(model, data):
    images = torch.rand(1, 3, 8, 8)
    doubled = {name: nn.Parameter(2 * value) for name, value in model.named_parameters()}
    features, _ = load_program(with_weights_of_torch_2_8(data, doubled), ROLE)(images)
    torch.testing.assert_close(features, 2 * model(images)[0])  # its layers are linear


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_program_is_refused_and_its_code_does_not_run(attack, data, tmp_path):
    hostile = attack(data, tmp_path / "marker")
    with pytest.raises(ValueError, match=f"{ROLE} must hold tensors and torch's own operators only, but it"):
        load_program(hostile, ROLE)
    assert not (tmp_path / "marker").exists()
    run_in_torch(hostile)
    assert (tmp_path / "marker").exists(), "this attack does nothing: the test would pass without any check"


def test_the_code_of_guards_is_not_run(data, tmp_path):
    hostile = with_guard(data, tmp_path / "marker")
    load_program(hostile, ROLE)(torch.zeros(2, 3, 8, 8))
    assert not (tmp_path / "marker").exists()
    run_in_torch(hostile)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("target", ["torch.hub.load", "_operator.methodcaller", "torch.ops.aten.from_file.default"])
def test_a_program_that_calls_another_function_is_refused(data, target):
    hostile = with_graph(data, lambda program: program["graph_module"]["graph"]["nodes"][0].update(target=target))
    with pytest.raises(ValueError, match=f"it calls '{target}': leave torch.no_grad, .* out of forward"):
        load_program(hostile, ROLE)


class WithoutGradient(Model):
    """As users write it: the gradient switched off inside."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            features, _ = super().forward(images)
        return features, images.mean(dim=1)


def test_a_program_with_a_part_of_its_own_is_refused_with_what_to_do():
    file = io.BytesIO()
    torch.export.save(torch.export.export(WithoutGradient(), (torch.zeros(2, 3, 8, 8),)), file)
    with pytest.raises(
        ValueError, match=r"it calls 'torch\.ops\.higher_order.*: leave torch\.no_grad, .* out of forward"
    ):
        load_program(file.getvalue(), ROLE)


def test_a_name_that_is_code_is_refused(data):
    def edit(program):
        program["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = ["images=print()"]

    with pytest.raises(ValueError, match=r"it has the name 'images=print\(\)'"):
        load_program(with_graph(data, edit), ROLE)


def test_torchscript_and_weights_are_refused_with_what_to_do(model):
    script, weights = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.trace(model, torch.zeros(2, 3, 8, 8)), script)
    torch.save(model.state_dict(), weights)
    with pytest.raises(ValueError, match=r"it is a TorchScript program, which can run code: export it: torch\.export"):
        load_program(script.getvalue(), ROLE)
    with pytest.raises(ValueError, match=r"weights that torch\.save wrote: load them, export it"):
        load_program(weights.getvalue(), ROLE)


def test_a_member_that_appears_twice_is_refused(data):
    twice = io.BytesIO(data)
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(GRAPH, b"{}")
    with pytest.raises(ValueError, match="members twice"):
        load_program(twice.getvalue(), ROLE)


def test_the_digest_is_that_of_the_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert program_digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
