"""Training steps of the notebook's machine on copy, in jitted JAX: what `benches/engine.rs` times, for comparison.

    python jax_ntm.py BATCH LENGTH THREADS UPDATES

Prints one line of JSON: milliseconds of every update after compilation (batch, forward, backward, clip, optimizer), the
loss of every update in nats per target bit, and peak memory. The letters of the shape comments are those of
`src/model/mod.rs`; the memory is (B, M, N) here, so that loops and sums run along rows of N contiguous values.

What makes it fast on a CPU, each kept because it measured faster:
- all that needs no state is outside the scan: the input's part of the LSTM, the output layer, and the weight gradients,
  which are one product over all steps of what went into a layer and the gradient of what came out;
- the write and the addressing are computed again in the backward pass instead of saved; the outer products of the write
  are einsums, whose gradients are matrix products and not slow reductions;
- sequences go through in chunks that fit the cache, on one XLA device per thread.
"""

import json
import os
import sys
import time

SIZE, LENGTH, THREADS, UPDATES = map(int, sys.argv[1:])
if hasattr(os, "sched_setaffinity"):  # XLA makes as many threads as it sees cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])

import jax
import jax.numpy as jnp
import numpy as np
import optax

X, Y, H, N, M, S = 9, 8, 100, 128, 20, 3
ADDRESSING = M + 3 + S  # key, strength, gate, shift, sharpening
HEADS = 2 * ADDRESSING + 2 * M  # read addressing, write addressing, erase, add
COSINE_EPSILON, SHARPEN_EPSILON, CONSTANT_MEMORY = 1e-6, 1e-16, 1e-6
CHUNK = 16  # sequences that go through the machine together
DEVICES = THREADS if SIZE % THREADS == 0 else 1


def start(seed):
    keys = iter(jax.random.split(jax.random.key(seed), 9))
    normal = lambda deviation, *shape: deviation * jax.random.normal(next(keys), shape)
    uniform = lambda bound, *shape: jax.random.uniform(next(keys), shape, minval=-bound, maxval=bound)
    xavier = lambda gain, rows, columns: uniform(gain * (6 / (rows + columns)) ** 0.5, rows, columns)
    return {
        "lstm": uniform(H**-0.5, X + M + H, 4 * H),  # rows: input, read, hidden; columns: gates i, f, g, o
        "lstm_bias": jnp.zeros(4 * H).at[H : 2 * H].set(1),
        "heads": jnp.hstack([xavier(1.4, H, ADDRESSING), xavier(1.4, H, ADDRESSING + 2 * M)]),
        "heads_bias": normal(0.01, HEADS),
        "output": xavier(1, H + M, Y),
        "output_bias": jnp.zeros(Y),
        "hidden": normal(0.05, H),
        "cell": normal(0.05, H),
        "read": normal(0.01, M),
        "weighting": jnp.zeros((2, N)).at[:, 0].set(10),
    }


@jax.custom_vjp
def softmax(z):
    e = jnp.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_forward(z):
    w = softmax(z)
    return w, w


def softmax_backward(w, d_w):
    product = w * d_w
    return (product - w * product.sum(-1, keepdims=True),)


softmax.defvjp(softmax_forward, softmax_backward)


@jax.checkpoint
def address(raw, prev, memory):
    """raw (B, 2, M + 3 + S), prev (B, 2, N), memory (B, M, N) -> weightings (B, 2, N), of the read and the write head"""
    key, strength, gate, shift, sharpening = jnp.split(raw, np.cumsum([M, 1, 1, S]), 2)
    # Eq. 5, 6: softmax_i(strength * cosine(k, M_i))
    unit = key * jax.lax.rsqrt((key**2).sum(2, keepdims=True) + COSINE_EPSILON)
    norms = jax.lax.rsqrt((memory**2).sum(1) + COSINE_EPSILON)  # (B, N)
    similarity = jnp.einsum("bhm,bmn->bhn", unit, memory) * norms[:, None]
    content = softmax(jax.nn.softplus(strength) * similarity)
    # Eq. 7: g w^c + (1 - g) w_{t-1}
    gate = jax.nn.sigmoid(gate)
    gated = gate * content + (1 - gate) * prev
    # Eq. 8: w~(i) = sum_k s_k w^g((i + k - S // 2) mod N)
    shift = softmax(shift)
    shifted = sum(shift[:, :, k, None] * jnp.roll(gated, S // 2 - k, 2) for k in range(S))
    # Eq. 9: w~^gamma / sum
    return softmax((1 + jax.nn.softplus(sharpening)) * jnp.log(shifted + SHARPEN_EPSILON))


@jax.checkpoint
def write(memory, w, erase, add):
    """Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a. w (B, N), erase and add (B, M)"""
    outer = lambda vector: jnp.einsum("bm,bn->bmn", vector, w)
    return memory * (1 - outer(erase)) + outer(add)


def step(weights, state, given):
    """given: what joins each layer's product before its gates, the input's part or the bias. The inputs of both layers
    are returned beside the read vector, for the weight gradients."""
    (hidden, cell, read, memory, weightings), (lstm_given, heads_given) = state, given
    seen = jnp.concatenate([read, hidden], 1)
    i, f, g, o = jnp.split(seen @ weights["lstm"] + lstm_given, 4, 1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
    raw, erase, add = jnp.split(hidden @ weights["heads"] + heads_given, [2 * ADDRESSING, 2 * ADDRESSING + M], 1)
    weightings = address(raw.reshape(-1, 2, ADDRESSING), weightings, memory)
    read = jnp.einsum("bn,bmn->bm", weightings[:, 0], memory)  # Eq. 2: r = sum_i w(i) M_i
    memory = write(memory, weightings[:, 1], jax.nn.sigmoid(erase), add)
    return (hidden, cell, read, memory, weightings), (seen, hidden, read)


def loss_and_gradient(parameters, inputs, targets):
    """inputs (T, B, X), targets (length, B, Y)"""
    steps, size, _ = inputs.shape
    lstm_given = inputs @ parameters["lstm"][:X] + parameters["lstm_bias"]  # (T, B, 4H)
    heads_given = jnp.broadcast_to(parameters["heads_bias"], (steps, size, HEADS))

    def loss(parameters, lstm_given, heads_given):
        # The scan's own gradients of these would be sums of outer products, step by step.
        weights = jax.lax.stop_gradient({"lstm": parameters["lstm"][X:], "heads": parameters["heads"]})
        repeat = lambda value: jnp.broadcast_to(value, (size, *value.shape))
        first = [repeat(parameters[name]) for name in ("hidden", "cell", "read")]
        first += [jnp.full((size, M, N), CONSTANT_MEMORY), repeat(softmax(parameters["weighting"]))]
        scanned = jax.lax.scan(lambda state, given: step(weights, state, given), tuple(first), (lstm_given, heads_given))
        seen, hidden, read = scanned[1]
        shown = jnp.concatenate([hidden, read], 2)[-len(targets) :]
        logits = shown @ parameters["output"] + parameters["output_bias"]
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean(), (seen, hidden)

    value_and_grad = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
    (value, (seen, hidden)), (gradient, d_lstm, d_heads) = value_and_grad(parameters, lstm_given, heads_given)
    over_steps = lambda into, d_out: jnp.einsum("tbi,tbj->ij", into, d_out)
    gradient["lstm"] = jnp.vstack([over_steps(inputs, d_lstm), over_steps(seen, d_lstm)])
    gradient["lstm_bias"] = d_lstm.sum((0, 1))
    gradient["heads"], gradient["heads_bias"] = over_steps(hidden, d_heads), d_heads.sum((0, 1))
    return value, gradient


def of_this_device(parameters, inputs, targets):
    size = inputs.shape[1]
    chunks = size // CHUNK if size % CHUNK == 0 else 1
    if chunks > 1:
        cut = lambda values: values.reshape(len(values), chunks, -1, values.shape[2]).swapaxes(0, 1)
        parts = jax.lax.map(lambda chunk: loss_and_gradient(parameters, *chunk), (cut(inputs), cut(targets)))
        result = jax.tree.map(lambda part: part.mean(0), parts)
    else:
        result = loss_and_gradient(parameters, inputs, targets)
    return jax.lax.pmean(result, "devices") if DEVICES > 1 else result


def build():
    """The compiled update, its parameters and the optimizer's state."""
    rmsprop = optax.rmsprop(3e-4, decay=0.95, eps=1e-4, centered=True, momentum=0.9)  # its eps is inside the root, as ours
    optimizer = optax.flatten(optax.chain(optax.clip_by_global_norm(0.3), rmsprop))
    all_devices = of_this_device
    if DEVICES > 1:
        mesh = jax.make_mesh((DEVICES,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
        whole, slices = jax.P(), jax.P(None, "devices")
        specs = {"in_specs": (whole, slices, slices), "out_specs": (whole, whole)}
        all_devices = jax.shard_map(of_this_device, mesh=mesh, check_vma=False, **specs)

    def update(parameters, state, inputs, targets):
        value, gradient = all_devices(parameters, inputs, targets)
        change, state = optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, change), state, value

    parameters = start(1)
    return jax.jit(update, donate_argnums=(0, 1)), parameters, optimizer.init(parameters)


def copy_batch(draws):
    """inputs (T, B, X), targets (length, B, Y): random bits, the end marker, then as many steps to answer."""
    bits = draws.integers(0, 2, (LENGTH, SIZE, Y)).astype(np.float32)
    inputs = np.zeros((2 * LENGTH + 1, SIZE, X), np.float32)
    inputs[:LENGTH, :, :Y] = bits
    inputs[LENGTH, :, Y] = 1
    return inputs, bits


def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def main():
    jax.config.update("jax_num_cpu_devices", DEVICES)
    update, parameters, state = build()
    draws = np.random.default_rng(1)
    # The first call compiles; the second compiles once more where the first one's results lie on several devices.
    for _ in range(2):
        parameters, state, value = update(parameters, state, *copy_batch(draws))
    value.block_until_ready()
    milliseconds, losses = [], []
    for _ in range(UPDATES):
        begin = time.perf_counter()
        parameters, state, value = update(parameters, state, *copy_batch(draws))
        losses.append(float(value))
        milliseconds.append((time.perf_counter() - begin) * 1e3)
    result = {"engine": "jax", "batch": SIZE, "length": LENGTH, "threads": THREADS}
    print(json.dumps({**result, "milliseconds": milliseconds, "loss": losses, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
