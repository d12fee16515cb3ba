"""The forward pass of a checkpoint in NumPy, written from checkpoints/README.md alone.

    numpy_forward.py CHECKPOINT INPUTS.npy LOGITS.npy      reads inputs (T, B, X), writes logits (T, B, Y), in float64
"""

import json
import sys

import numpy as np
from safetensors import safe_open

COSINE_EPSILON = 1e-6
SHARPEN_EPSILON = 1e-16
CONSTANT_MEMORY = 1e-6

ACTIVATIONS = {"linear": lambda z: z, "tanh": np.tanh}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softplus(z):
    return np.logaddexp(0, z)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


class Lstm:
    """Stacked LSTM layers: an LSTM controller, or the body of the baseline."""

    def __init__(self, prefix, layers, weights, size):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.layers = [[weights[f"{prefix}.{name}_l{layer}"] for name in names] for layer in range(layers)]
        self.h = [np.tile(row, (size, 1)) for row in weights["init.hidden"]]
        self.c = [np.tile(row, (size, 1)) for row in weights["init.cell"]]

    def __call__(self, x):
        for layer, (weight_ih, weight_hh, bias_ih, bias_hh) in enumerate(self.layers):
            z = x @ weight_ih.T + bias_ih + self.h[layer] @ weight_hh.T + bias_hh
            i, f, g, o = np.split(z, 4, axis=1)
            self.c[layer] = sigmoid(f) * self.c[layer] + sigmoid(i) * np.tanh(g)
            x = self.h[layer] = sigmoid(o) * np.tanh(self.c[layer])
        return x


def feedforward(layers, weights):
    def controller(x):
        for layer in range(layers):
            x = np.tanh(linear(weights, f"controller.{layer}", x))
        return x
    return controller


class Ntm:
    def __init__(self, model, weights, size):
        self.model, self.weights = model, weights
        rows, self.width = model["memory"]["rows"], model["memory"]["width"]
        heads = model["read_heads"] + model["write_heads"]
        kind, layers = model["controller"]["kind"], model["controller"]["layers"]
        self.controller = Lstm("controller", layers, weights, size) if kind == "lstm" else feedforward(layers, weights)

        constant = model["init"]["memory"] == "constant"
        memory = np.full((rows, self.width), CONSTANT_MEMORY) if constant else weights["init.memory"]
        match model["init"]["weighting"]:
            case "one_hot":
                weighting = np.tile(np.eye(1, rows), (heads, 1))
            case "uniform":
                weighting = np.full((heads, rows), 1 / rows)
            case "learned" | "learned_random":
                weighting = softmax(weights["init.weighting"])
        self.memory = np.tile(memory, (size, 1, 1))  # (B, N, M)
        self.weightings = [np.tile(row, (size, 1)) for row in weighting]  # R + W times (B, N)
        self.reads = [np.tile(row, (size, 1)) for row in weights["init.read"]]  # R times (B, M)

    def __call__(self, x):
        h = self.controller(np.hstack([x, *self.reads]))
        before, memory = self.memory, self.memory
        read_heads = self.model["read_heads"]
        for head in range(read_heads):
            outputs = linear(self.weights, f"heads.read.{head}", h)
            w = self.weightings[head] = self.address(outputs, self.weightings[head], before)
            self.reads[head] = np.einsum("bn,bnm->bm", w, before)  # Eq. 2
        for head in range(self.model["write_heads"]):
            outputs = linear(self.weights, f"heads.write.{head}", h)
            at = read_heads + head
            w = self.weightings[at] = self.address(outputs, self.weightings[at], before)
            erase = sigmoid(outputs[:, -2 * self.width:-self.width])
            add = ACTIVATIONS[self.model["activation"]["add"]](outputs[:, -self.width:])
            w = w[:, :, None]
            memory = memory * (1 - w * erase[:, None]) + w * add[:, None]  # Eq. 3, 4
        self.memory = memory
        return linear(self.weights, "output", np.hstack([h, *self.reads]))

    def address(self, outputs, prev_weighting, memory):
        """The outputs of a head (B, ...) and its previous weighting (B, N) -> its weighting (B, N)."""
        shifts = self.model["shift_range"]
        cuts = np.cumsum([self.width, 1, 1, shifts, 1])
        key, strength, gate, shift, sharpening = np.split(outputs[:, :cuts[-1]], cuts[:-1], axis=1)
        key, strength, gate = ACTIVATIONS[self.model["activation"]["key"]](key), softplus(strength), sigmoid(gate)
        shift, sharpening = softmax(shift), 1 + softplus(sharpening)

        norms = [np.sqrt((rows**2).sum(-1) + COSINE_EPSILON) for rows in (key, memory)]
        similarity = np.einsum("bm,bnm->bn", key, memory) / (norms[0][:, None] * norms[1])  # Eq. 6
        content = softmax(strength * similarity)  # Eq. 5
        gated = gate * content + (1 - gate) * prev_weighting  # Eq. 7
        rows = np.arange(memory.shape[1])
        taps = [gated[:, (rows + k - (shifts - 1) // 2) % len(rows)] for k in range(shifts)]
        shifted = sum(shift[:, k, None] * tap for k, tap in enumerate(taps))  # Eq. 8
        return softmax(sharpening * np.log(shifted + SHARPEN_EPSILON))  # Eq. 9


def network(model, weights, size):
    if model["kind"] == "ntm":
        return Ntm(model, weights, size)
    lstm = Lstm("lstm", model["layers"], weights, size)
    return lambda x: linear(weights, "output", lstm(x))


def load(path):
    """The `model` section of a checkpoint's recipe, and its weights by name."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        if metadata["format"] != "ntm/1":
            sys.exit(f"{path} has format {metadata['format']}")
        names = [name for name in file.keys() if name.startswith("model.")]
        weights = {name.removeprefix("model."): file.get_tensor(name).astype(np.float64) for name in names}
    return json.loads(metadata["recipe"])["model"], weights


if __name__ == "__main__":
    checkpoint, inputs, logits = sys.argv[1:]
    inputs = np.load(inputs)
    step = network(*load(checkpoint), inputs.shape[1])
    np.save(logits, np.stack([step(x) for x in inputs]))
