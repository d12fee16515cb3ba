"""As `jax_ntm.py`, but the way one writes it first: `lax.scan` over the step, `value_and_grad`, `jit`, and XLA does the rest.

    python jax_plain_ntm.py BATCH LENGTH THREADS UPDATES
"""

import json
import os
import resource
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
ADDRESSING = M + 3 + S
EPSILON = 1e-6


def start(key):
    keys = jax.random.split(key, 3)
    uniform = lambda key, shape: jax.random.uniform(key, shape, minval=-0.1, maxval=0.1)
    return {
        "lstm": uniform(keys[0], (X + M + H, 4 * H)),
        "lstm_bias": jnp.zeros(4 * H).at[H : 2 * H].set(1),
        "heads": uniform(keys[1], (H, 2 * ADDRESSING + 2 * M)),
        "heads_bias": jnp.zeros(2 * ADDRESSING + 2 * M),
        "output": uniform(keys[2], (H + M, Y)),
        "output_bias": jnp.zeros(Y),
        "hidden": jnp.zeros(H),
        "cell": jnp.zeros(H),
        "read": jnp.zeros(M),
        "weighting": jnp.zeros((2, N)).at[:, 0].set(10),
    }


def address(raw, memory, prev):
    """Eq. 5-9. raw (B, ADDRESSING), memory (B, N, M), prev (B, N) -> (B, N)"""
    key, strength, gate, shift, sharpening = jnp.split(raw, [M, M + 1, M + 2, M + 2 + S], axis=1)
    norm = lambda rows: jnp.sqrt((rows**2).sum(-1) + EPSILON)
    similarity = jnp.einsum("bnm,bm->bn", memory, key) / (norm(memory) * norm(key)[:, None])
    content = jax.nn.softmax(jax.nn.softplus(strength) * similarity)
    gate = jax.nn.sigmoid(gate)
    gated = gate * content + (1 - gate) * prev
    shift = jax.nn.softmax(shift)
    shifted = sum(shift[:, k : k + 1] * jnp.roll(gated, S // 2 - k, axis=1) for k in range(S))
    return jax.nn.softmax((1 + jax.nn.softplus(sharpening)) * jnp.log(shifted + 1e-16))


def step(p, state, x):
    h, c, read, memory, w_read, w_write = state
    gates = jnp.concatenate([x, read, h], axis=1) @ p["lstm"] + p["lstm_bias"]
    i, f, g, o = jnp.split(gates, 4, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    raw_read, raw_write, erase, add = jnp.split(
        h @ p["heads"] + p["heads_bias"], [ADDRESSING, 2 * ADDRESSING, 2 * ADDRESSING + M], axis=1
    )
    w_read, w_write = address(raw_read, memory, w_read), address(raw_write, memory, w_write)
    read = jnp.einsum("bn,bnm->bm", w_read, memory)
    w = w_write[:, :, None]
    memory = memory * (1 - w * jax.nn.sigmoid(erase)[:, None]) + w * add[:, None]
    logits = jnp.concatenate([h, read], axis=1) @ p["output"] + p["output_bias"]
    return (h, c, read, memory, w_read, w_write), logits


def loss(p, inputs, targets):
    rows = lambda value: jnp.broadcast_to(value, (SIZE, *value.shape))
    weighting = jax.nn.softmax(p["weighting"])
    memory = jnp.full((SIZE, N, M), 1e-6)
    state = (rows(p["hidden"]), rows(p["cell"]), rows(p["read"]), memory, rows(weighting[0]), rows(weighting[1]))
    _, logits = jax.lax.scan(lambda state, x: step(p, state, x), state, inputs)
    return optax.sigmoid_binary_cross_entropy(logits[LENGTH + 1 :], targets).mean()


optimizer = optax.chain(
    optax.clip_by_global_norm(0.3), optax.rmsprop(3e-4, decay=0.95, eps=1e-4, centered=True, momentum=0.9)
)


@jax.jit
def update(p, moments, inputs, targets):
    value, gradient = jax.value_and_grad(loss)(p, inputs, targets)
    change, moments = optimizer.update(gradient, moments)
    return optax.apply_updates(p, change), moments, value


def main():
    p = start(jax.random.key(1))
    moments = optimizer.init(p)
    rng = np.random.default_rng(1)
    milliseconds, losses = [], []
    for count in range(UPDATES + 1):
        began = time.perf_counter()
        targets = rng.integers(0, 2, (LENGTH, SIZE, Y)).astype(np.float32)
        inputs = np.zeros((2 * LENGTH + 1, SIZE, X), np.float32)
        inputs[:LENGTH, :, :Y], inputs[LENGTH, :, Y] = targets, 1
        p, moments, value = update(p, moments, inputs, targets)
        losses.append(float(value))
        if count > 0:  # the first one compiles
            milliseconds.append((time.perf_counter() - began) * 1e3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"engine": "jax-plain", "batch": SIZE, "length": LENGTH, "threads": THREADS}
    print(json.dumps(result | {"milliseconds": milliseconds, "losses": losses, "peak_mb": peak}))


main()
