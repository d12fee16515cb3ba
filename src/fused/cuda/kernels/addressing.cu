// Addressing (paper, section 3.3): from what a head emits to its weighting over the N rows, and back. One warp a head, its
// lanes over the rows, so that sums need no barrier.

// The place of an element of what the heads emit within its head.
DEVICE int place_in_head(const Sizes &p, int element) {
    const int read = p.reads * p.addressing();
    return element < read ? element % p.addressing() : (element - read) % (p.addressing() + 2 * p.m);
}

// The activation of one emitted value; the shift's softmax is `address`'s.
DEVICE real activate(const Sizes &p, int place, real raw) {
    if (place < p.m) {
        return p.key_tanh ? tanh(raw) : raw;
    } else if (place == p.strength()) {
        return softplus(raw);
    } else if (place == p.gate()) {
        return sigmoid(raw);
    } else if (place < p.sharpening()) {
        return raw;
    } else if (place == p.sharpening()) {
        return 1 + softplus(raw);
    } else if (place < p.add()) {
        return sigmoid(raw);
    }
    return p.add_tanh ? tanh(raw) : raw;
}

// From the gradient `d` after an activation whose output is y to the one before it; the shift's is `address_backward`'s.
DEVICE real activate_backward(const Sizes &p, int place, real y, real d) {
    if (place < p.m) {
        return p.key_tanh ? d * (1 - y * y) : d;
    } else if (place == p.strength()) {
        return d * (1 - exp(-y)); // the slope of softplus is the sigmoid of its input, 1 - exp(-output)
    } else if (place == p.gate()) {
        return d * y * (1 - y);
    } else if (place < p.sharpening()) {
        return d;
    } else if (place == p.sharpening()) {
        return d * (1 - exp(1 - y));
    } else if (place < p.add()) {
        return d * y * (1 - y);
    }
    return p.add_tanh ? d * (1 - y * y) : d;
}

// A softmax in place over the lanes' elements; every lane has left its own, and their largest in `highest`.
DEVICE void softmax(real *values, int size, real highest) {
    highest = warp_largest(highest);
    real sum = 0;
    for (int i = LANE; i < size; i += LANES) {
        values[i] = exp(values[i] - highest);
        sum += values[i];
    }
    const real scale = 1 / warp_sum(sum);
    for (int i = LANE; i < size; i += LANES) {
        values[i] *= scale;
    }
}

#define LOWEST real(-3e38)

// 1 / |k|
DEVICE real inverse_key_norm(const Sizes &p, const real *key) {
    real square = 0;
    for (int m = LANE; m < p.m; m += LANES) {
        square += key[m] * key[m];
    }
    return 1 / sqrt(warp_sum(square) + COSINE_EPSILON);
}

// Row i + turn modulo N, for any turn.
DEVICE int turned(const Sizes &p, int i, int turn) {
    const int row = (i + turn) % p.n;
    return row < 0 ? row + p.n : row;
}

// What the forward pass keeps of one head's addressing, (N) each, where there is a tape.
struct Kept {
    real *similarity, *content, *shifted, *weighting;
};

// Eq. 5-9 for one head. `similarity` (N) holds key . M_i, `gated` (N) is scratch,
// `weighting` (N) the previous one on entry, the new one on return.
DEVICE void address(const Sizes &p, real *head, const real *inverse_norm, real *similarity, real *gated, real *weighting, bool keep, Kept kept) {
    const real strength = head[p.strength()], gate = head[p.gate()], gamma = head[p.sharpening()];
    real *shift = head + p.shift();
    real highest = LOWEST;
    for (int k = LANE; k < p.s; k += LANES) {
        highest = larger(highest, shift[k]);
    }
    softmax(shift, p.s, highest);
    // Eq. 6: K = k . M_i / (|k| |M_i|), then what Eq. 5 takes the softmax of, strength K
    const real inverse_key = inverse_key_norm(p, head);
    highest = LOWEST;
    for (int i = LANE; i < p.n; i += LANES) {
        const real k = similarity[i] * (inverse_norm[i] * inverse_key);
        if (keep) {
            kept.similarity[i] = k;
        }
        gated[i] = strength * k;
        highest = larger(highest, gated[i]);
    }
    // Eq. 5: w^c = softmax(v), v = strength K
    softmax(gated, p.n, highest);
    // Eq. 7: w^g = g w^c + (1 - g) prev_w
    for (int i = LANE; i < p.n; i += LANES) {
        if (keep) {
            kept.content[i] = gated[i];
        }
        gated[i] = weighting[i] + gate * (gated[i] - weighting[i]);
    }
    __syncwarp();
    // Eq. 8: w~(i) = sum_k s_k w^g((i + k - S / 2) mod N), plus the epsilon of Eq. 9
    highest = LOWEST;
    for (int i = LANE; i < p.n; i += LANES) {
        real shifted = SHARPEN_EPSILON;
        int row = turned(p, i, -(p.s / 2));
        for (int k = 0; k < p.s; k++) {
            shifted += shift[k] * gated[row];
            row = row + 1 == p.n ? 0 : row + 1;
        }
        if (keep) {
            kept.shifted[i] = shifted;
        }
        weighting[i] = gamma * log(shifted);
        highest = larger(highest, weighting[i]);
    }
    // Eq. 9: w = softmax(gamma ln w~)
    softmax(weighting, p.n, highest);
    if (keep) {
        for (int i = LANE; i < p.n; i += LANES) {
            kept.weighting[i] = weighting[i];
        }
    }
}

// Eq. 9-5 backwards for one head. On entry `d_weighting` (N) holds the gradient of the weighting, on return that of the
// previous one. `d_dots` (N) receives that of key . M_i, `row_factor` (N) what multiplies M_i in its own gradient, and `d` the
// gradients of the head's values: after the activations but for the shift, and without what the memory adds to the key's.
DEVICE void address_backward(const Sizes &p, const real *head, const real *inverse_norm, const real *prev_weighting, const Kept &kept, const real *weighting,
                             real *d_weighting, real *gated, real *d_dots, real *row_factor, real *d) {
    const real strength = head[p.strength()], gate = head[p.gate()], gamma = head[p.sharpening()];
    const real *shift = head + p.shift();
    real *d_shift = d + p.shift(), *d_shifted = row_factor;
    // Eq. 9: d_u = w (d_w - d_w . w) by the softmax rule, then d_gamma = d_u . ln w~, d_w~ = d_u gamma / w~
    real mean = 0, d_gamma = 0;
    for (int i = LANE; i < p.n; i += LANES) {
        mean += weighting[i] * d_weighting[i];
    }
    mean = warp_sum(mean);
    for (int i = LANE; i < p.n; i += LANES) {
        const real shifted = kept.shifted[i], d_u = weighting[i] * (d_weighting[i] - mean);
        d_gamma += d_u * log(shifted);
        d_shifted[i] = gamma * d_u / shifted;
        gated[i] = prev_weighting[i] + gate * (kept.content[i] - prev_weighting[i]);
    }
    d_gamma = warp_sum(d_gamma);
    __syncwarp();
    // Eq. 8: d_s_k = sum_i d_w~(i) w^g(i + k - S/2), d_w^g(j) = sum_k s_k d_w~(j - k + S/2)
    real shift_mean = 0;
    for (int k = 0; k < p.s; k++) {
        real d_tap = 0;
        for (int i = LANE; i < p.n; i += LANES) {
            d_tap += d_shifted[i] * gated[turned(p, i, k - p.s / 2)];
        }
        d_tap = warp_sum(d_tap);
        shift_mean += shift[k] * d_tap;
        if (LANE == 0) {
            d_shift[k] = d_tap;
        }
    }
    real by_content = 0, by_prev = 0;
    for (int i = LANE; i < p.n; i += LANES) {
        real d_gated = 0;
        int row = turned(p, i, p.s / 2);
        for (int k = 0; k < p.s; k++) {
            d_gated += shift[k] * d_shifted[row];
            row = row == 0 ? p.n - 1 : row - 1;
        }
        // Eq. 7: w^g = g w^c + (1 - g) prev_w: d_prev_w = (1 - g) d_w^g, d_g = d_w^g . (w^c - prev_w), d_w^c = g d_w^g
        by_content += d_gated * kept.content[i];
        by_prev += d_gated * prev_weighting[i];
        d_weighting[i] = (1 - gate) * d_gated;
        d_dots[i] = d_gated;
    }
    by_content = warp_sum(by_content);
    by_prev = warp_sum(by_prev);
    const real inverse_key = inverse_key_norm(p, head);
    __syncwarp();
    // Eq. 5: w^c = softmax(v), v = strength K: d_v = w^c (g d_w^g - mean), d_strength = d_v . K, d_K = strength d_v.
    // Eq. 6: K = (k . M_i) / (|k| |M_i|): d_(k . M_i) = d_K / (|k| |M_i|), in place of d_w^g; through |M_i|: -d_K K / |M_i|^2 M_i;
    // through |k|: -sum_i d_K K / |k|^2 k, and that sum is strength d_strength.
    real d_strength = 0;
    for (int i = LANE; i < p.n; i += LANES) {
        const real k = kept.similarity[i], norm = inverse_norm[i];
        const real d_v = kept.content[i] * (gate * (d_dots[i] - by_content)), d_k = strength * d_v;
        d_strength += d_v * k;
        row_factor[i] = -(d_k * k) * (norm * norm);
        d_dots[i] = d_k * (inverse_key * norm);
    }
    d_strength = warp_sum(d_strength);
    const real through_norm = strength * d_strength * inverse_key * inverse_key;
    for (int m = LANE; m < p.m; m += LANES) {
        d[m] = -(through_norm * head[m]);
    }
    if (LANE == 0) {
        d[p.strength()] = d_strength;
        d[p.gate()] = by_content - by_prev;
        d[p.sharpening()] = d_gamma;
    }
    // the shift is a softmax of what the head emits
    for (int k = LANE; k < p.s; k += LANES) {
        d_shift[k] = shift[k] * (d_shift[k] - shift_mean);
    }
}
