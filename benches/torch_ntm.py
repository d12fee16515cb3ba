"""Training steps of the notebook's machine on copy, in batched eager PyTorch: what `benches/engine.rs` times, for comparison.

    python torch_ntm.py BATCH LENGTH THREADS UPDATES

Prints one line of JSON: milliseconds of every update (batch, forward, backward, clip, optimizer), the loss of every
update in nats per target bit, and peak memory. The letters of the shape comments are those of `src/model/mod.rs`.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

X, Y, H, N, M, S = 9, 8, 100, 128, 20, 3
ADDRESSING = M + 3 + S  # key, strength, gate, shift, sharpening
COSINE_EPSILON, SHARPEN_EPSILON, CONSTANT_MEMORY = 1e-6, 1e-16, 1e-6


class Ntm(nn.Module):
    """One read head (0) and one write head (1), addressed together: every tensor of addressing has an axis of 2."""

    def __init__(self):
        super().__init__()
        self.controller = nn.LSTMCell(X + M, H)
        self.heads = nn.Linear(H, 2 * ADDRESSING + 2 * M)  # read addressing, write addressing, erase, add
        self.output = nn.Linear(H + M, Y)
        self.hidden = nn.Parameter(0.05 * torch.randn(H))
        self.cell = nn.Parameter(0.05 * torch.randn(H))
        self.read = nn.Parameter(0.01 * torch.randn(M))
        self.weighting = nn.Parameter(torch.zeros(2, N))
        with torch.no_grad():
            self.weighting[:, 0] = 10  # focused on row 0
            self.controller.bias_ih.zero_()[H : 2 * H] = 1  # the forget gate
            self.controller.bias_hh.zero_()
            for rows in (self.heads.weight[:ADDRESSING], self.heads.weight[ADDRESSING:]):
                nn.init.xavier_uniform_(rows, gain=1.4)
            nn.init.normal_(self.heads.bias, std=0.01)
            nn.init.xavier_uniform_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, inputs):
        """inputs (T, B, X) -> logits (T, B, Y)"""
        size = inputs.shape[1]
        state = self.hidden.expand(size, H), self.cell.expand(size, H)
        read = self.read.expand(size, M)
        weightings = self.weighting.softmax(1).expand(size, 2, N)
        memory = inputs.new_full((size, N, M), CONSTANT_MEMORY)
        shown = []
        for x in inputs:
            state = self.controller(torch.cat([x, read], 1), state)
            addressing, erase, add = self.heads(state[0]).split([2 * ADDRESSING, M, M], 1)
            weightings = address(addressing.view(size, 2, ADDRESSING), weightings, memory)  # (B, 2, N)
            # Eq. 2: r = sum_i w(i) M_i
            read = torch.bmm(weightings[:, :1], memory).squeeze(1)  # (B, M)
            # Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a
            w = weightings[:, 1, :, None]  # (B, N, 1)
            keep = 1 - w * erase.sigmoid()[:, None]  # (B, N, M)
            memory = torch.addcmul(w * add[:, None], memory, keep)
            shown.append(torch.cat([state[0], read], 1))
        return self.output(torch.stack(shown))


def address(raw, prev, memory):
    """raw (B, 2, M + 3 + S), prev (B, 2, N), memory (B, N, M) -> weightings (B, 2, N)"""
    key, strength, gate, shift, sharpening = raw.split([M, 1, 1, S, 1], 2)
    # Eq. 5, 6: softmax_i(strength * cosine(k, M_i)); the strength and the key's norm are one factor per head
    factor = F.softplus(strength) * (key.square().sum(2, keepdim=True) + COSINE_EPSILON).rsqrt()  # (B, 2, 1)
    norms = (memory.square().sum(2) + COSINE_EPSILON).rsqrt()  # (B, N)
    content = (torch.bmm(factor * key, memory.transpose(1, 2)) * norms[:, None]).softmax(2)
    # Eq. 7: g w^c + (1 - g) w_{t-1}
    gated = torch.lerp(prev, content, gate.sigmoid())
    # Eq. 8: w~(i) = sum_k s_k w^g((i + k - S // 2) mod N)
    taps = torch.stack([gated.roll(S // 2 - k, 2) for k in range(S)], 2)  # (B, 2, S, N)
    shifted = torch.matmul(shift.softmax(2)[:, :, None], taps).squeeze(2)
    # Eq. 9: w~^gamma / sum
    return ((1 + F.softplus(sharpening)) * (shifted + SHARPEN_EPSILON).log()).softmax(2)


def copy_batch(size, length):
    """inputs (T, B, X), targets (length, B, Y): random bits, the end marker, then as many steps to answer."""
    bits = torch.randint(2, (length, size, Y)).float()
    inputs = torch.zeros(2 * length + 1, size, X)
    inputs[:length, :, :Y] = bits
    inputs[length, :, Y] = 1
    return inputs, bits


def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def main():
    size, length, threads, updates = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    machine = Ntm()
    # Ours divides by sqrt(variance + 1e-4); PyTorch has only sqrt(variance) + eps, so its eps is the root: equal at 0.
    optimizer = torch.optim.RMSprop(machine.parameters(), lr=3e-4, alpha=0.95, eps=1e-2, momentum=0.9, centered=True)
    milliseconds, losses = [], []
    for _ in range(updates):
        start = time.perf_counter()
        inputs, targets = copy_batch(size, length)
        loss = F.binary_cross_entropy_with_logits(machine(inputs)[-length:], targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(machine.parameters(), 0.3)
        optimizer.step()
        milliseconds.append((time.perf_counter() - start) * 1e3)
        losses.append(loss.item())
    result = {"engine": "torch", "batch": size, "length": length, "threads": threads}
    print(json.dumps({**result, "milliseconds": milliseconds, "loss": losses, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
