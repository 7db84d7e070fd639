"""From a trained network to one that stands alone: uint8 images in, class probabilities out, on the CPU."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version

import torch
from torch import nn

from cifar_mlflow.learning import compiled
from cifar_mlflow.learning.networks import own
from cifar_mlflow.learning.networks.preprocessing import Preprocessing
from cifar_mlflow.memory import is_out_of_memory
from cifar_mlflow.text import first_line

# What torch.export says of the commonest faults, in words of its own, and what it means.
REFUSALS = {
    "Constraints violated": "it fixes the number of images; take that from x.shape[0], not from len(x) or int()",
    "data-dependent": "what it does depends on what it computes, as by `if x.mean() > 0`; torch.where takes both sides",
}
RECIPE = '''"""Loads the network with its weights, where the files of the run and the network's own code are."""

from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.networks.build import build

HERE = Path(__file__).parent
config = resolve(yaml.safe_load((HERE.parent / "config.yaml").read_text()))
network = build(config, {classes}, {image_shape})
network.load_state_dict(load_file(HERE / "last.safetensors"))
network.eval()


@torch.no_grad()
def probabilities(pixels):
    """uint8 images (n, height, width, channels) to class probabilities (n, {classes})."""
    scale, shift = (torch.tensor(each).view(1, -1, 1, 1) for each in ({scale}, {shift}))
    return network((pixels.permute(0, 3, 1, 2) * scale + shift).contiguous()).softmax(1)
'''


class Classifier(nn.Module):
    """Preprocessing, network and softmax in one: uint8 (n, height, width, channels) to float32 (n, classes)."""

    def __init__(self, preprocessing: Preprocessing, network: nn.Module) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return own.logits_of(self.network(self.preprocessing(pixels))).float().softmax(1)


def classifier(preprocessing: Preprocessing, network: nn.Module, weights: Mapping[str, torch.Tensor]) -> Classifier:
    """A copy of `network` with `weights`, in evaluation mode on the CPU, ready for torch.export."""
    with own.Copyable():
        network = copy.deepcopy(network).cpu()
    compiled.restore(network)
    network.load_state_dict(dict(weights))
    exportable = Classifier(copy.deepcopy(preprocessing).cpu(), network).eval()
    for parameter in exportable.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.contiguous()  # torch.export warns of weights in channels_last order
    return exportable


def program(model: Classifier, images: torch.Tensor) -> torch.export.ExportedProgram:
    """The graph of `model` for any number of images; `images` is an example of two or more.

    Raises ValueError if it can be exported for this number of images alone, or acts by what it sees in them, and
    whatever else torch.export raises.
    """
    try:
        return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("images")},))
    except Exception as error:
        for sign, reason in REFUSALS.items():
            if sign in str(error):
                raise ValueError(reason).with_traceback(error.__traceback__) from error
        raise


@contextmanager
def quiet() -> Iterator[None]:
    """Around an export: what torch prints and logs on its way, up to 140 lines, is fine or ends in an error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def without_softmax(program: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """A copy of an exported and loaded `Classifier` that answers logits in place of probabilities.

    Raises ValueError if the program does not end in a softmax.
    """
    changed, softmax = _copy_with_softmax(program)
    softmax.replace_all_uses_with(softmax.all_input_nodes[0])
    changed.graph.erase_node(softmax)
    changed.recompile()
    return changed


def with_temperature(program: torch.fx.GraphModule, temperature: float) -> torch.fx.GraphModule:
    """A copy of an exported and loaded `Classifier` whose logits are divided by `temperature` before the softmax.

    Its weights have the same names and values. Raises ValueError as `without_softmax`.
    """
    changed, softmax = _copy_with_softmax(program)
    (logits,) = softmax.all_input_nodes
    with changed.graph.inserting_before(softmax):
        scaled = changed.graph.call_function(torch.ops.aten.div.Scalar, (logits, temperature))
    softmax.replace_input_with(logits, scaled)
    changed.recompile()
    return changed


def _copy_with_softmax(program: torch.fx.GraphModule) -> tuple[torch.fx.GraphModule, torch.fx.Node]:
    changed = copy.deepcopy(program)
    (output,) = changed.graph.find_nodes(op="output")
    if [node.target for node in output.all_input_nodes] != [torch.ops.aten.softmax.int]:
        raise ValueError("it does not end in a softmax, as models of cifar-mlflow do")
    return changed, output.all_input_nodes[0]


def onnx_file(program: torch.fx.GraphModule, images: torch.Tensor, about: Mapping[str, str]) -> bytes:
    """The exported and loaded program as the content of an ONNX file, for any number of images.

    Its input `images` is uint8 as the program's, its output `probabilities` float32; `about` is in its metadata.

    Raises ValueError if ONNX, in which a file has at most 2 GB, has no form for it; ImportError without the package.
    """
    import onnx  # noqa: F401 (torch would tell of it in words of its own)
    import onnxscript  # noqa: F401

    try:
        with quiet(), redirect_stdout(io.StringIO()):
            exported = torch.onnx.export(
                program,
                (images,),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["images"],
                output_names=["probabilities"],
                dynamo=True,
            )
            assert exported is not None
            exported.model.metadata_props.update(about)
            content: bytes = exported.model_proto.SerializeToString()
    except Exception as error:  # of torch, onnxscript and protobuf, which share no class
        if is_out_of_memory(error):
            raise
        raise ValueError(f"{type(error).__name__}: {first_line(error)}") from error
    return content


def weight_files(models: Mapping[str, Classifier], classes: int, image_shape: Sequence[int]) -> dict[str, bytes]:
    """What is kept of models that cannot be exported: their networks' weights, and Python code that loads them.

    The weights are in the format of safetensors, each tensor under its name in the network's state_dict.
    """
    from safetensors.torch import save

    files = {}
    for name, model in models.items():
        weights = model.network.state_dict()
        files[f"{name}.safetensors"] = save({key: tensor.clone() for key, tensor in weights.items()})
    preprocessing = next(iter(models.values())).preprocessing
    scale, shift = (each.flatten().tolist() for each in (preprocessing.scale, preprocessing.shift))
    recipe = RECIPE.format(classes=classes, image_shape=tuple(image_shape), scale=scale, shift=shift)
    return {**files, "load.py": recipe.encode()}


def requirements() -> list[str]:
    """What a machine needs to load the exported model: not this package."""
    return [f"torch=={version('torch').split('+')[0]}", f"mlflow=={version('mlflow')}", f"numpy=={version('numpy')}"]
