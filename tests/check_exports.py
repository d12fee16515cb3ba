"""Runs what `ntm export` wrote in torch and onnxruntime, and prints how far it is from the engine: JSON, {name: {check: difference}}.

    check_exports.py DIRECTORY      with a folder for each machine, which holds
        module.pt, sequence.onnx, step.onnx, init.onnx, weights.safetensors, weights.npz
        cases.npz: inputs_0, logits_0, double_0, inputs_1, ... with the engine's logits, computed in f32 and in f64
        widths.json: the input and the output width

A difference is the largest over all logits and cases, relative to the largest logit above 1.
"""

import json
import sys
import warnings
from pathlib import Path

import light_torch  # noqa: F401, before torch
import numpy as np
import onnx
import onnxruntime
import safetensors.numpy
import torch

warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit.load is deprecated, and has no successor for us
GRAPHS = ("sequence", "step", "init")


def difference(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype == np.float32, (found.shape, expected.shape)
    assert np.isfinite(found).all() and np.isfinite(expected).all()  # of NaN no comparison says anything
    return float(np.abs(found - expected).max() / max(1, np.abs(expected).max()))


def torch_whole(module, inputs):
    with torch.no_grad():
        return module(torch.from_numpy(inputs)).numpy()


def torch_frozen(folder, inputs):
    module = torch.jit.load(folder / "module.pt")
    assert not any(part.training for part in module.modules())
    return torch_whole(torch.jit.freeze(module), inputs)


def torch_double(folder, inputs):
    module = torch.jit.load(folder / "module.pt").double()
    return torch_whole(module, inputs.astype(np.float64)).astype(np.float32)


def torch_steps(module, inputs):
    state, logits = module.init(inputs.shape[1]), []
    with torch.no_grad():
        for x in torch.from_numpy(inputs):
            y, state = module.step(x, state)
            logits.append(y)
    return torch.stack(logits).numpy()


def onnx_whole(sessions, inputs):
    return sessions["sequence"].run(None, {"inputs": inputs})[0]


def onnx_steps(sessions, inputs):
    init, step = sessions["init"], sessions["step"]
    names = [given.name for given in step.get_inputs()]  # x, then the parts of the state
    state, logits = init.run(None, {"batch": np.array(inputs.shape[1])}), []
    for x in inputs:
        y, *state = step.run(None, dict(zip(names, [x, *state])))
        logits.append(y)
    return np.stack(logits)


def check_weights(folder, module):
    """The module's tensors are those of the weights alone, by name; all but a `random` memory are learned."""
    weights, npz = safetensors.numpy.load_file(folder / "weights.safetensors"), np.load(folder / "weights.npz")
    tensors = module.state_dict()
    assert sorted(tensors) == sorted(weights) == sorted(npz.files), (sorted(tensors), sorted(weights))
    for name, tensor in tensors.items():
        assert np.array_equal(tensor.numpy(), weights[name]) and np.array_equal(weights[name], npz[name]), name
    fixed = {"init.memory"} if '"memory":"random"' in module.recipe else set()
    assert {name for name, parameter in module.named_parameters()} == set(weights) - fixed
    module(torch.randn(3, 2, json.loads(folder.joinpath("widths.json").read_text())[0])).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.requires_grad and parameter.grad.isfinite().all(), name
    return min(parameter.grad.abs().max().item() for parameter in module.parameters())


def check_onnx(folder, recipe, progress):
    for graph in GRAPHS:
        onnx.checker.check_model(str(folder / f"{graph}.onnx"), full_check=True)
        model = onnx.load(folder / f"{graph}.onnx")
        assert {p.key: p.value for p in model.metadata_props} == {"recipe": recipe, "progress": progress}
        free = {d.dim_param for v in [*model.graph.input, *model.graph.output] for d in v.type.tensor_type.shape.dim} - {""}
        assert free == ({"steps", "batch"} if graph == "sequence" else {"batch"}), (graph, free)


def sessions(folder):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return {graph: onnxruntime.InferenceSession(folder / f"{graph}.onnx", options) for graph in GRAPHS}


def check(folder):
    extra = {"recipe.json": "", "progress.json": ""}
    module = torch.jit.load(folder / "module.pt", _extra_files=extra)
    recipe, progress = extra["recipe.json"].decode(), extra["progress.json"].decode()
    assert (module.recipe, module.progress) == (recipe, progress) and json.loads(recipe)["model"]
    check_onnx(folder, recipe, progress)

    cases, runtimes = np.load(folder / "cases.npz"), sessions(folder)
    found = {"least gradient": check_weights(folder, module)}
    for index in range(len(cases.files) // 3):
        inputs, logits, double = (cases[f"{name}_{index}"] for name in ("inputs", "logits", "double"))
        whole = {"torch": torch_whole(module, inputs), "onnxruntime": onnx_whole(runtimes, inputs)}
        differences = {name: difference(result, logits) for name, result in whole.items()}
        differences["engine in f64"] = difference(logits, double)
        if len(inputs) == 100:
            differences["torch in f64"] = difference(torch_double(folder, inputs), double)
            differences["torch, frozen"] = difference(torch_frozen(folder, inputs), whole["torch"])
            differences["torch, steps"] = difference(torch_steps(module, inputs), whole["torch"])
            differences["onnxruntime, steps"] = difference(onnx_steps(runtimes, inputs), whole["onnxruntime"])
        for name, value in differences.items():
            found[name] = max(found.get(name, 0), value)
    return found


torch.set_num_threads(1)
print(json.dumps({folder.name: check(folder) for folder in sorted(Path(sys.argv[1]).iterdir())}))
