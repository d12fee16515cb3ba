// The training loss of the logits, one block a sequence: its gradient, and the logits where the batch has its steps.

KERNEL ntm_loss(const Sizes, const Buffers b) {
    const int sequence = blockIdx.x, steps = b.lengths[sequence];
    const long long first = b.first_row[sequence];
    for (long long e = THREAD; e < (long long)b.steps * b.outputs; e += THREADS) {
        const int t = e / b.outputs, y = e % b.outputs;
        const long long place = (long long)t * b.sequences + sequence, at = (first + t) * b.outputs + y;
        const real logit = t < steps ? b.logits[at] : real(0);
        b.placed[place * b.outputs + y] = logit; // padding has 0
        if (b.keep && t < steps) {
            // cross-entropy of a logit: sigmoid - target; (output - target)^2: 2 (output - target)
            const real target = b.targets[place * b.outputs + y], weight = b.loss_weights[place];
            b.d_logits[at] = (b.squared ? 2 * (logit - target) : sigmoid(logit) - target) * weight;
        }
    }
}
