// Addressing (paper, section 3.3): from what a head emits to its weighting over the N rows, and back. A team of warps a head,
// its lanes over the rows, which they keep in registers.

// The place of an element of what the heads emit within its head.
DEVICE int place_in_head(const Sizes &p, int element) {
    const int read = p.reads * p.addressing();
    return element < read ? element % p.addressing() : (element - read) % (p.addressing() + 2 * p.m);
}

// The activation of one emitted value; the shift's softmax is `address`'s. Lanes of a warp have all kinds of values, so sigmoid
// and softplus share what they have in common.
DEVICE real activate(const Sizes &p, int place, real raw) {
    const bool is_key = place < p.m, is_add = place >= p.add();
    const bool is_softplus = place == p.strength() || place == p.sharpening();
    const bool is_sigmoid = place == p.gate() || (place >= p.erase() && !is_add);
    const real small = exp(-fabs(raw)), inverse = 1 / (1 + small);
    real value = raw;
    if (is_softplus) {
        value = larger(raw, real(0)) + log1p(small) + (place == p.sharpening());
    }
    value = is_sigmoid ? (raw < 0 ? small * inverse : inverse) : value;
    return (is_key && p.key_tanh) || (is_add && p.add_tanh) ? tanh(raw) : value;
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

#define LOWEST real(-3e38)

// One value of each of a lane's rows.
struct Rows {
    real at[MOST_ROWS];
};

// For each row of a lane of a warp, or of a team: its place q among the lane's, and how far it is from the lane's first. What
// has a value a row is taken from the lane's first row on, so that the distance is a constant of the load.
#define EACH_ROW(p, q, far) EACH_TEAM_ROW(p, Warp(), q, far)
#define EACH_TEAM_ROW(p, team, q, far)                                                                                           \
    _Pragma("unroll") for (int q = 0; q < MOST_ROWS; q++) if (const int far = q * team.lanes; far < p.n && team.lane + far < p.n)

DEVICE real inverse_root(real square) {
#ifdef __CUDA_ARCH__
    const real root = rsqrtf(square);
    return root * (real(1.5) - real(0.5) * square * root * root); // to the last bit but one
#else
    return 1 / sqrt(square);
#endif
}

// A softmax over all rows of a team.
DEVICE void softmax(const Sizes &p, Team &team, Rows &values) {
    real highest = LOWEST, sum = 0;
    EACH_TEAM_ROW(p, team, q, far) {
        highest = larger(highest, values.at[q]);
    }
    highest = team.largest(highest);
    EACH_TEAM_ROW(p, team, q, far) {
        values.at[q] = exp(values.at[q] - highest);
        sum += values.at[q];
    }
    const real scale = 1 / team.sum(sum);
    EACH_TEAM_ROW(p, team, q, far) {
        values.at[q] *= scale;
    }
}

// Row i + turn modulo N, for any turn.
DEVICE int turned(const Sizes &p, int i, int turn) {
    const int up = turn % p.n, row = i + (up < 0 ? up + p.n : up);
    return row < p.n ? row : row - p.n;
}

// The softmax of a head's shift, blurred, in place: what the head emitted becomes the distribution over the S turns.
DEVICE void shift_softmax(const Sizes &p, const Team &team, real *shift, real scale, real floor) {
    real highest = LOWEST, sum = 0;
    for (int k = 0; k < p.s; k++) {
        highest = larger(highest, shift[k]);
    }
    for (int k = 0; k < p.s; k++) {
        sum += exp(shift[k] - highest);
    }
    team.sync();
    for (int k = team.lane; k < p.s; k += team.lanes) {
        shift[k] = scale * (exp(shift[k] - highest) / sum) + floor;
    }
}

// What the forward pass keeps of one head's addressing, (N) each, where there is a tape; and of the memory, by its first head.
struct Kept {
    real *similarity, *content, *shifted, *weighting;
    real *inverse_norm; // or null
    real *shift;        // among what the head emits
    METHOD Kept from(int row) const {
        return Kept{similarity + row, content + row, shifted + row, weighting + row, inverse_norm ? inverse_norm + row : nullptr, shift};
    }
};

// Eq. 5-9 for one head, on M_{t-1} (M, N). `gated` (N) is scratch in shared memory, `weighting` (N) the previous one on entry,
// the new one on return.
DEVICE void address(const Sizes &p, Team &team, real *head, const real *memory, real *gated, real *weighting,
                    real scale, real floor, bool keep, const Kept &all_kept) {
    const real strength = head[p.strength()], gate = head[p.gate()], gamma = head[p.sharpening()];
    const Kept kept = all_kept.from(team.lane);
    real *my_gated = gated + team.lane;
    memory += team.lane;
    weighting += team.lane;
    // Eq. 6: K = k . M_i / (|k| |M_i|)
    Rows similarity, square, value;
    real key_square = COSINE_EPSILON;
    EACH_TEAM_ROW(p, team, q, far) {
        similarity.at[q] = 0;
        square.at[q] = COSINE_EPSILON;
    }
#pragma unroll 4
    for (int m = 0; m < p.m; m++) {
        const real key = head[m];
        key_square += key * key;
        EACH_TEAM_ROW(p, team, q, far) {
            const real cell = memory[m * p.n + far];
            similarity.at[q] += key * cell;
            square.at[q] += cell * cell;
        }
    }
    shift_softmax(p, team, head + p.shift(), scale, floor);
    const real inverse_key = inverse_root(key_square);
    EACH_TEAM_ROW(p, team, q, far) {
        const real inverse_norm = inverse_root(square.at[q]);
        similarity.at[q] *= inverse_norm * inverse_key;
        value.at[q] = strength * similarity.at[q];
        if (keep) {
            kept.similarity[far] = similarity.at[q];
            if (kept.inverse_norm) {
                kept.inverse_norm[far] = inverse_norm;
            }
        }
    }
    // Eq. 5: w^c = softmax(v), v = strength K
    softmax(p, team, value);
    // Eq. 7: w^g = g w^c + (1 - g) prev_w
    EACH_TEAM_ROW(p, team, q, far) {
        if (keep) {
            kept.content[far] = value.at[q];
        }
        my_gated[far] = weighting[far] + gate * (value.at[q] - weighting[far]);
    }
    team.sync();
    const real *shift = head + p.shift();
    for (int k = team.lane; keep && k < p.s; k += team.lanes) {
        kept.shift[k] = shift[k];
    }
    // Eq. 8: w~(i) = sum_k s_k w^g((i + k - S / 2) mod N), plus the epsilon of Eq. 9
    EACH_TEAM_ROW(p, team, q, far) {
        real shifted = SHARPEN_EPSILON;
        int row = turned(p, team.lane + far, -(p.s / 2));
        for (int k = 0; k < p.s; k++) {
            shifted += shift[k] * gated[row];
            row = row + 1 == p.n ? 0 : row + 1;
        }
        if (keep) {
            kept.shifted[far] = shifted;
        }
        value.at[q] = gamma * log(shifted);
    }
    // Eq. 9: w = softmax(gamma ln w~)
    softmax(p, team, value);
    EACH_TEAM_ROW(p, team, q, far) {
        weighting[far] = value.at[q];
        if (keep) {
            kept.weighting[far] = value.at[q];
        }
    }
}

// What the backward pass knows of one head in one step, (N) each, in shared memory. `similarity` turns into the factor of M_i
// in its own gradient, `content` into the gradient of key . M_i.
struct Staged {
    real *similarity, *content, *shifted;
    const real *inverse_norm, *prev_weighting, *weighting;
    METHOD Staged from(int row) const {
        return Staged{similarity + row, content + row, shifted + row, inverse_norm + row, prev_weighting + row, weighting + row};
    }
};

// Eq. 9-5 backwards for one head. `d_weighting` (N) receives the gradient of the previous weighting, `d_w` holds that of the
// weighting; `inverse_key` is 1 / |k|. `d` (emitted, G) receives the gradients of the head's scalars, that of the shift before
// its softmax. Returns what the key is multiplied by in its own gradient, through |k|.
DEVICE real address_backward(const Sizes &p, Team &team, const real *head, const Staged &all, const Rows &d_w,
                             real inverse_key, real scale, real floor, real *d_weighting, real *d) {
    const real strength = head[p.strength()], gate = head[p.gate()], gamma = head[p.sharpening()];
    const real *shift = head + p.shift();
    const Staged at = all.from(team.lane);
    const real *d_shifted = all.shifted; // each lane writes its own, then all read others'
    d_weighting += team.lane;
    Rows content, prev, similarity, norm; // all that is needed first, since what follows writes in its place
    EACH_TEAM_ROW(p, team, q, far) {
        content.at[q] = at.content[far];
        prev.at[q] = at.prev_weighting[far];
        similarity.at[q] = at.similarity[far];
        norm.at[q] = at.inverse_norm[far];
    }
    // Eq. 9: d_u = w (d_w - d_w . w) by the softmax rule, then d_gamma = d_u . ln w~, d_w~ = d_u gamma / w~
    real mean = 0, d_gamma = 0;
    Rows gated, d_gated;
    EACH_TEAM_ROW(p, team, q, far) {
        gated.at[q] = at.weighting[far]; // until the next pass over the rows
        mean += gated.at[q] * d_w.at[q];
    }
    mean = team.sum(mean);
    EACH_TEAM_ROW(p, team, q, far) {
        const real shifted = at.shifted[far], d_u = gated.at[q] * (d_w.at[q] - mean);
        d_gamma += d_u * log(shifted);
        at.shifted[far] = gamma * d_u / shifted;
        gated.at[q] = prev.at[q] + gate * (content.at[q] - prev.at[q]);
        d_gated.at[q] = 0;
    }
    team.sync();
    // Eq. 8: d_s_k = sum_j d_w~(j - k + S/2) w^g(j), d_w^g(j) = sum_k s_k d_w~(j - k + S/2)
    // Eq. 7: w^g = g w^c + (1 - g) prev_w: d_prev_w = (1 - g) d_w^g, d_g = d_w^g . (w^c - prev_w), d_w^c = g d_w^g
    // What these sum over the rows goes over the team a few taps at a time, the last of them with the rest.
    const int taps = MOST_SUMS - 3;
    real shift_mean = 0, sums[MOST_SUMS];
    for (int first = 0; first < p.s; first += taps) {
        for (int k = 0; k < MOST_SUMS; k++) {
            sums[k] = 0;
        }
#pragma unroll
        for (int tap = 0; tap < taps; tap++) {
            const int k = first + tap;
            if (k < p.s) {
                EACH_TEAM_ROW(p, team, q, far) {
                    const real by = d_shifted[turned(p, team.lane + far, p.s / 2 - k)];
                    sums[tap] += by * gated.at[q];
                    d_gated.at[q] += shift[k] * by;
                }
            }
        }
        if (first + taps >= p.s) {
            EACH_TEAM_ROW(p, team, q, far) {
                sums[taps] += d_gated.at[q] * content.at[q];
                sums[taps + 1] += d_gated.at[q] * prev.at[q];
                d_weighting[far] = (1 - gate) * d_gated.at[q];
            }
            sums[taps + 2] = d_gamma;
        }
        team.sums(sums);
#pragma unroll
        for (int tap = 0; tap < taps; tap++) {
            const int k = first + tap;
            if (k < p.s) {
                const real d_tap = (shift[k] - floor) * sums[tap]; // shift - floor is a softmax, times `scale`
                shift_mean += d_tap;
                if (team.lane == 0) {
                    d[(p.shift() + k) * p.together] = d_tap; // and less its share of the mean below
                }
            }
        }
    }
    const real by_content = sums[taps], by_prev = sums[taps + 1];
    d_gamma = sums[taps + 2];
    // Eq. 5: w^c = softmax(v), v = strength K: d_v = w^c (g d_w^g - mean), d_strength = d_v . K, d_K = strength d_v.
    // Eq. 6: K = (k . M_i) / (|k| |M_i|): d_(k . M_i) = d_K / (|k| |M_i|); through |M_i|: -d_K K / |M_i|^2 M_i;
    // through |k|: -sum_i d_K K / |k|^2 k, and that sum is strength d_strength.
    real d_strength = 0;
    EACH_TEAM_ROW(p, team, q, far) {
        const real k = similarity.at[q], d_v = content.at[q] * (gate * (d_gated.at[q] - by_content)), d_k = strength * d_v;
        d_strength += d_v * k;
        at.similarity[far] = -(d_k * k) * (norm.at[q] * norm.at[q]);
        at.content[far] = d_k * (inverse_key * norm.at[q]);
    }
    d_strength = team.sum(d_strength);
    if (team.lane == 0) {
        for (int k = 0; k < p.s; k++) {
            d[(p.shift() + k) * p.together] -= (shift[k] - floor) * (shift_mean / scale);
        }
        d[p.strength() * p.together] = d_strength;
        d[p.gate() * p.together] = by_content - by_prev;
        d[p.sharpening() * p.together] = d_gamma;
    }
    return -(strength * d_strength * inverse_key * inverse_key);
}
