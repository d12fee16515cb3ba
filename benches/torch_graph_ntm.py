"""`torch_ntm.py` on a CUDA card, the whole update captured as one CUDA graph and replayed: nothing is dispatched from Python.

    python torch_graph_ntm.py BATCH LENGTH UPDATES [cuda|cpu]

Prints one line of JSON as `torch_ntm.py` does; milliseconds are means over tens of updates, which nobody waits for one by one.
On a CPU the same update runs without a graph, to see that the program is right.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from torch_ntm import Ntm, copy_batch, peak_mb


class Training:
    """An update on fixed buffers: inputs and targets are copied in, then it is replayed."""

    def __init__(self, size, length, device):
        self.length = length
        self.machine = Ntm().to(device)
        cuda = device.type == "cuda"
        options = {"lr": 3e-4, "alpha": 0.95, "eps": 1e-2, "momentum": 0.9, "centered": True, "foreach": True}
        self.optimizer = torch.optim.RMSprop(self.machine.parameters(), **options, capturable=cuda)
        self.inputs, self.targets = (values.to(device) for values in copy_batch(size, length))
        self.graph = None
        if cuda:
            side = torch.cuda.Stream()  # capture wants a few updates on another stream first
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.update()
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.loss = self.update()

    def update(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(self.machine(self.inputs)[-self.length :], self.targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.machine.parameters(), 0.3, foreach=True)
        self.optimizer.step()
        return loss.detach()

    def run(self, inputs, targets):
        self.inputs.copy_(inputs, non_blocking=True)
        self.targets.copy_(targets, non_blocking=True)
        if self.graph:
            self.graph.replay()
            return self.loss
        return self.update()


def main():
    size, length, updates = map(int, sys.argv[1:4])
    device = torch.device(sys.argv[4] if len(sys.argv) > 4 else "cuda")
    torch.manual_seed(1)
    training = Training(size, length, device)
    together = max(1, updates // 10)
    milliseconds, losses = [], []
    for _ in range(updates // together):
        start = time.perf_counter()
        for _ in range(together):
            inputs, targets = copy_batch(size, length)
            loss = training.run(inputs, targets)
        losses.append(loss.item())  # waits
        milliseconds.append((time.perf_counter() - start) * 1e3 / together)
    result = {"engine": "torch-graph" if training.graph else "torch", "batch": size, "length": length}
    print(json.dumps({**result, "device": device.type, "milliseconds": milliseconds, "loss": losses, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
