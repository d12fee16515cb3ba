//! The sizes of a network, where its parameters lie in theta, and its weights packed for `product`.

use super::product::{PANEL, Panels};
use super::vector::{LANES, softmax};
use crate::model::{Activation, CONSTANT_MEMORY, Config, ControllerConfig, Layout, MemoryStart, WeightingStart};
use crate::simd::Arch;
use crate::simd::Float;

/// Sizes by their letters (`crate::model` has the legend) and the three kinds of matrix product.
/// The LSTM baseline is a machine without heads: R = W = N = M = 0.
pub struct Plan {
    pub x: usize,
    pub y: usize,
    pub n: usize,
    /// N rounded up to whole parts: the stride of every vector over the memory's rows. Beyond N, memories, weightings and
    /// their gradients hold zeros.
    pub n_step: usize,
    pub m: usize,
    pub h: usize,
    pub s: usize,
    pub read_heads: usize,
    pub write_heads: usize,
    /// LSTM layers, as opposed to feed-forward ones.
    pub recurrent: bool,
    pub key: Activation,
    pub add: Activation,
    pub controller: Vec<Dense>,
    pub heads: Dense,
    pub output: Dense,
    /// Where each head's values start in a row of `heads`, read heads first.
    pub head_at: Vec<usize>,
    /// Row offsets in the padded (R + W, N) and (M, N), as `product` takes them.
    pub weighting_at: Vec<usize>,
    pub memory_at: Vec<usize>,
    /// 0..M
    pub columns: Vec<usize>,
    /// Where each read head's values start in (R, M).
    pub read_at: Vec<usize>,
    pub starts: Starts,
    pub layout: Layout,
}

/// Where the first state lies in theta.
#[derive(Default)]
pub struct Starts {
    pub hidden: Option<usize>,
    pub cell: Option<usize>,
    pub read: Option<usize>,
    /// In theta, and whether it is learned; else constant.
    pub memory: Option<(usize, bool)>,
    pub weighting: Option<usize>,
    /// Where the weighting is not in theta: one-hot or uniform.
    pub one_hot: bool,
}

/// A matrix with a bias: outputs (J) = W (J, K) z (K), where z begins with a 1 for the bias.
pub struct Dense {
    pub outputs: usize, // J
    pub inputs: usize,  // K
    /// Row strides: J and K rounded up, so that panels have no remainder.
    pub output_step: usize,
    pub input_step: usize,
    pieces: Vec<Piece>,
}

/// A block of theta (rows, columns) inside a Dense.
struct Piece {
    theta: usize,
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

fn padded(size: usize) -> usize {
    size.next_multiple_of(8)
}

impl Dense {
    fn new(outputs: usize, inputs: usize) -> Dense {
        Dense { outputs, inputs, output_step: padded(outputs), input_step: padded(inputs), pieces: vec![] }
    }

    /// Puts the parameter of a name, a bias or a weight, at a row and column.
    fn put(&mut self, layout: &Layout, name: &str, row: usize, column: usize) {
        let parameter = layout.get(name);
        let columns = if parameter.shape.len() == 2 { parameter.shape[1] } else { 1 };
        self.pieces.push(Piece { theta: parameter.offset, row, column, rows: parameter.shape[0], columns });
    }

    fn put_linear(&mut self, layout: &Layout, prefix: &str, row: usize) {
        self.put(layout, &format!("{prefix}.bias"), row, 0);
        self.put(layout, &format!("{prefix}.weight"), row, 1);
    }

    /// W (J, K) and its transpose (K, J), both in panels; LSTM's two biases add up. `rows` is scratch.
    #[inline(always)]
    fn pack<F: Float>(&self, theta: &[F], weights: &mut Packed<F>) {
        let Packed { rows, w, transposed } = weights;
        let (tall, step) = (self.outputs.next_multiple_of(PANEL), self.inputs.next_multiple_of(PANEL));
        rows.resize(tall * step, F::ZERO); // the padding stays zero from here on
        w.resize(self.outputs * step, F::ZERO);
        transposed.resize(self.inputs * tall, F::ZERO);
        rows.iter_mut().step_by(step).for_each(|bias| *bias = F::ZERO);
        for piece in &self.pieces {
            for row in 0..piece.rows {
                let from = &theta[piece.theta + row * piece.columns..][..piece.columns];
                let to = &mut rows[(piece.row + row) * step + piece.column..][..piece.columns];
                match piece.column {
                    0 => to[0] += from[0],
                    _ => to.copy_from_slice(from),
                }
            }
        }
        // in arrays rather than slices, so that the compiler copies registers and calls no memmove
        for (row, values) in rows.chunks_exact(step).take(self.outputs).enumerate() {
            for (panel, columns) in values.as_chunks::<PANEL>().0.iter().enumerate() {
                w.as_chunks_mut::<PANEL>().0[panel * self.outputs + row] = *columns;
            }
        }
        for (panel, to) in transposed.chunks_exact_mut(self.inputs * PANEL).enumerate() {
            let (to, tall) = (to.as_chunks_mut::<PANEL>().0, &rows[panel * PANEL * step..][..PANEL * step]);
            for (i, row) in tall.chunks_exact(step).enumerate() {
                for (to, value) in to.iter_mut().zip(row) {
                    to[i] = *value;
                }
            }
        }
    }

    /// Puts rows of the gradient of W (J, K) where they belong in theta's gradient.
    pub fn unpack<F: Float>(&self, d_w: &[F], gradient: &mut [F]) {
        for piece in &self.pieces {
            for row in 0..piece.rows {
                let from = &d_w[(piece.row + row) * self.input_step + piece.column..][..piece.columns];
                gradient[piece.theta + row * piece.columns..][..piece.columns].copy_from_slice(from);
            }
        }
    }
}

/// The weights of a Dense, both ways round, as `Panels::packed` takes them.
#[derive(Default)]
pub struct Packed<F> {
    rows: Vec<F>,
    w: Vec<F>,
    transposed: Vec<F>,
}

impl<F> Packed<F> {
    /// W (J, K)
    pub fn w(&self, dense: &Dense) -> Panels<'_, F> {
        Panels::packed(&self.w, dense.outputs)
    }

    /// Its transpose (K, J)
    pub fn transposed(&self, dense: &Dense) -> Panels<'_, F> {
        Panels::packed(&self.transposed, dense.inputs)
    }
}

/// What all sequences of an update share: packed weights and the first state.
#[derive(Default)]
pub struct Weights<F> {
    pub controller: Vec<Packed<F>>,
    pub heads: Packed<F>,
    pub output: Packed<F>,
    pub hidden: Vec<F>,    // (L, H)
    pub cell: Vec<F>,      // (L, H)
    pub read: Vec<F>,      // (R, M)
    pub memory: Vec<F>,    // (M, N)
    pub weighting: Vec<F>, // (R + W, N)
    /// 0 for a row, the lowest number beyond N: added before a softmax, it keeps the padding out. (n_step)
    pub padding: Vec<F>,
}

impl Plan {
    pub fn new(config: &Config, x: usize, y: usize) -> Plan {
        let layout = Layout::new(config, x, y);
        let find = |name: &str| layout.find(name).map(|parameter| parameter.offset);
        let mut starts = Starts { hidden: find("init.hidden"), cell: find("init.cell"), ..Starts::default() };
        let (prefix, layers, recurrent, ntm) = match config {
            Config::Lstm(layers) => ("lstm", *layers, true, None),
            Config::Ntm(ntm) => {
                starts.read = find("init.read");
                starts.weighting = find("init.weighting");
                starts.one_hot = ntm.init.weighting == WeightingStart::OneHot;
                starts.memory = find("init.memory").map(|at| (at, ntm.init.memory == MemoryStart::Learned));
                let recurrent = matches!(ntm.controller, ControllerConfig::Lstm(_));
                ("controller", ntm.controller.layers(), recurrent, Some(ntm))
            }
        };
        let h = layers.hidden;
        let (n, m, s) = ntm.map_or((0, 0, 0), |ntm| (ntm.memory.rows, ntm.memory.width, ntm.shift_range));
        let n_step = n.next_multiple_of(LANES);
        let (read_heads, write_heads) = ntm.map_or((0, 0), |ntm| (ntm.read_heads, ntm.write_heads));

        let mut controller = vec![];
        for layer in 0..layers.layers {
            let below = if layer == 0 { x + read_heads * m } else { h };
            if recurrent {
                let mut dense = Dense::new(4 * h, 1 + below + h);
                dense.put(&layout, &format!("{prefix}.bias_ih_l{layer}"), 0, 0);
                dense.put(&layout, &format!("{prefix}.bias_hh_l{layer}"), 0, 0);
                dense.put(&layout, &format!("{prefix}.weight_ih_l{layer}"), 0, 1);
                dense.put(&layout, &format!("{prefix}.weight_hh_l{layer}"), 0, 1 + below);
                controller.push(dense);
            } else {
                let mut dense = Dense::new(h, 1 + below);
                dense.put_linear(&layout, &format!("{prefix}.{layer}"), 0);
                controller.push(dense);
            }
        }
        let addressing = m + 3 + s;
        let head_at: Vec<usize> = (0..read_heads + write_heads)
            .map(|head| head * addressing + head.saturating_sub(read_heads) * 2 * m)
            .collect();
        let mut heads = Dense::new((read_heads + write_heads) * addressing + write_heads * 2 * m, 1 + h);
        for (head, at) in head_at.iter().enumerate() {
            let name = if head < read_heads {
                format!("heads.read.{head}")
            } else {
                format!("heads.write.{}", head - read_heads)
            };
            heads.put_linear(&layout, &name, *at);
        }
        let mut output = Dense::new(y, 1 + h + read_heads * m);
        output.put_linear(&layout, "output", 0);
        let activation = ntm.map(|ntm| ntm.activation);
        Plan {
            x,
            y,
            n,
            n_step,
            m,
            h,
            s,
            read_heads,
            write_heads,
            recurrent,
            key: activation.map_or(Activation::Linear, |activation| activation.key),
            add: activation.map_or(Activation::Linear, |activation| activation.add),
            controller,
            heads,
            output,
            weighting_at: (0..read_heads + write_heads).map(|head| head * n_step).collect(),
            memory_at: (0..m).map(|column| column * n_step).collect(),
            columns: (0..m).collect(),
            read_at: (0..read_heads).map(|head| head * m).collect(),
            head_at,
            starts,
            layout,
        }
    }

    /// R + W
    pub fn all_heads(&self) -> usize {
        self.read_heads + self.write_heads
    }

    /// Packs theta (layout.size()) for an update.
    pub fn pack<F: Float, A: Arch>(&self, theta: &[F], weights: &mut Weights<F>) {
        weights.controller.resize_with(self.controller.len(), Packed::default);
        for (dense, packed) in self.controller.iter().zip(&mut weights.controller) {
            dense.pack(theta, packed);
        }
        self.heads.pack(theta, &mut weights.heads);
        self.output.pack(theta, &mut weights.output);

        let copy = |at: Option<usize>, size: usize| at.map_or(vec![], |at| theta[at..at + size].to_vec());
        weights.hidden = copy(self.starts.hidden, self.controller.len() * self.h);
        weights.cell = copy(self.starts.cell, self.controller.len() * self.h);
        weights.read = copy(self.starts.read, self.read_heads * self.m);
        let (n, step) = (self.n, self.n_step);
        weights.padding = (0..step).map(|i| if i < n { F::ZERO } else { F::LOWEST }).collect();
        weights.memory.clear();
        weights.memory.resize(self.m * step, F::ZERO);
        for (column, values) in weights.memory.chunks_exact_mut(step.max(1)).enumerate() {
            for (row, value) in values[..n].iter_mut().enumerate() {
                *value = self.starts.memory.map_or(F::of(CONSTANT_MEMORY), |(at, _)| theta[at + row * self.m + column]);
            }
        }
        weights.weighting.clear();
        weights.weighting.resize(self.all_heads() * step, F::ZERO);
        for (head, w) in weights.weighting.chunks_exact_mut(step.max(1)).enumerate() {
            match self.starts.weighting {
                Some(at) => {
                    w[..n].copy_from_slice(&theta[at + head * n..][..n]);
                    softmax::<F, A>(&mut w[..n]);
                }
                None if self.starts.one_hot => w[0] = F::ONE,
                None => w[..n].fill(F::of(1.0 / n as f64)),
            }
        }
    }
}
