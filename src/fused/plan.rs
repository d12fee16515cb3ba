//! The sizes of a network and where its parameters lie in theta, for the fused engine of every device.

use crate::model::{Activation, Config, ControllerConfig, Emitted, Layout, NtmConfig, Spec, WeightingStart};
use crate::simd::LANES;
use crate::tasks::Batch;
use std::ops::Range;

/// Sizes by their letters (`crate::model` has the legend) and the three kinds of matrix product.
/// The LSTM baseline is a machine without heads: R = W = N = M = 0.
#[derive(Clone)]
pub struct Plan {
    pub x: usize,
    pub y: usize,
    pub n: usize,
    /// N rounded up to a multiple of `LANES`: the stride of every vector over the memory's rows. Beyond N, memories,
    /// their gradients, w and w^c hold zeros. What other vectors hold there is multiplied by one of these before any
    /// sum.
    pub n_stride: usize,
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
    /// Where each head's values start in a row of `heads`, read heads first, and where they lie from there on.
    pub head_at: Vec<usize>,
    pub emitted: Emitted,
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
#[derive(Clone)]
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

impl Starts {
    fn new(layout: &Layout, one_hot: bool) -> Starts {
        let find = |name: &str| layout.find(name).map(|parameter| parameter.offset);
        Starts {
            hidden: find("init.hidden"),
            cell: find("init.cell"),
            read: find("init.read"),
            memory: layout.find("init.memory").map(|parameter| (parameter.offset, parameter.learned)),
            weighting: find("init.weighting"),
            one_hot,
        }
    }
}

/// A matrix with a bias: outputs (J) = W (J, K) z (K), where z begins with a 1 for the bias.
#[derive(Clone)]
pub struct Dense {
    pub outputs: usize, // J
    pub inputs: usize,  // K
    /// The first element of z whose gradient is needed. A layer of the controller passes none back to its bias or to
    /// the input. Heads and output pass all back, since their gradients meet in one vector.
    pub passed: usize,
    /// Row strides: J, K and K - passed rounded up, so that panels have no remainder.
    pub output_stride: usize,
    pub input_stride: usize,
    pub passed_stride: usize,
    pub pieces: Vec<Piece>,
}

/// A block of theta (rows, columns) inside a Dense.
#[derive(Clone)]
pub struct Piece {
    pub theta: usize,
    pub row: usize,
    pub column: usize,
    pub rows: usize,
    pub columns: usize,
}

impl Dense {
    fn new(outputs: usize, inputs: usize, passed: usize) -> Dense {
        let [output_stride, input_stride, passed_stride] =
            [outputs, inputs, inputs - passed].map(|size| size.next_multiple_of(LANES));
        Dense { outputs, inputs, passed, output_stride, input_stride, passed_stride, pieces: vec![] }
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

    /// A Linear, for z = [1, what comes from below].
    fn linear(layout: &Layout, prefix: &str, outputs: usize, below: usize, passed: usize) -> Dense {
        let mut dense = Dense::new(outputs, 1 + below, passed);
        dense.put_linear(layout, prefix, 0);
        dense
    }

    /// An LSTM's layer, for z = [1, what comes from below, prev_h]; the gates are i, f, g, o.
    fn lstm(layout: &Layout, prefix: &str, layer: usize, h: usize, below: usize, passed: usize) -> Dense {
        let mut dense = Dense::new(4 * h, 1 + below + h, passed);
        dense.put(layout, &format!("{prefix}.bias_ih_l{layer}"), 0, 0);
        dense.put(layout, &format!("{prefix}.bias_hh_l{layer}"), 0, 0);
        dense.put(layout, &format!("{prefix}.weight_ih_l{layer}"), 0, 1);
        dense.put(layout, &format!("{prefix}.weight_hh_l{layer}"), 0, 1 + below);
        dense
    }

    /// All heads as one, for z = [1, h], and the row of each head's first value.
    fn heads(layout: &Layout, emitted: Emitted, reads: usize, writes: usize, h: usize) -> (Dense, Vec<usize>) {
        let mut dense = Dense::new(reads * emitted.reading() + writes * emitted.writing(), 1 + h, 0);
        let read = (0..reads).map(|head| (format!("heads.read.{head}"), emitted.reading()));
        let write = (0..writes).map(|head| (format!("heads.write.{head}"), emitted.writing()));
        let (mut at, mut next) = (vec![], 0);
        for (name, values) in read.chain(write) {
            dense.put_linear(layout, &name, next);
            at.push(next);
            next += values;
        }
        (dense, at)
    }

    /// Row, column and place in theta of all its elements; LSTM's two biases share the places of column 0.
    pub fn elements(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.pieces.iter().flat_map(|piece| {
            (0..piece.rows * piece.columns).map(|element| {
                let (row, column) = (element / piece.columns, element % piece.columns);
                (piece.row + row, piece.column + column, piece.theta + element)
            })
        })
    }
}

impl Plan {
    pub fn new(spec: Spec) -> Plan {
        let layout = Layout::new(spec);
        let Spec { config, input_width: x, output_width: y } = spec;
        let (prefix, layers, recurrent, ntm) = match config {
            Config::Lstm(layers) => ("lstm", *layers, true, None),
            Config::Ntm(ntm) => {
                // no `..`: with a field that it does not know the fused engine would be another function
                let NtmConfig {
                    controller,
                    memory: _,
                    read_heads: _,
                    write_heads: _,
                    shift_range: _,
                    activation: _,
                    init: _,
                } = ntm;
                let recurrent = matches!(controller, ControllerConfig::Lstm(_));
                ("controller", controller.layers(), recurrent, Some(ntm))
            }
        };
        let h = layers.hidden;
        let (n, m, s) = ntm.map_or((0, 0, 0), |ntm| (ntm.memory.rows, ntm.memory.width, ntm.shift_range));
        let n_stride = n.next_multiple_of(LANES);
        let (read_heads, write_heads) = ntm.map_or((0, 0), |ntm| (ntm.read_heads, ntm.write_heads));
        let emitted = Emitted::new(m, s);
        let layer = |layer| {
            let (below, passed) = if layer == 0 { (x + read_heads * m, 1 + x) } else { (h, 1) };
            if recurrent {
                Dense::lstm(&layout, prefix, layer, h, below, passed)
            } else {
                Dense::linear(&layout, &format!("{prefix}.{layer}"), h, below, passed)
            }
        };
        let (heads, head_at) = Dense::heads(&layout, emitted, read_heads, write_heads, h);
        let activation = ntm.map(|ntm| ntm.activation);
        Plan {
            x,
            y,
            n,
            n_stride,
            m,
            h,
            s,
            read_heads,
            write_heads,
            recurrent,
            key: activation.map_or(Activation::Linear, |activation| activation.key),
            add: activation.map_or(Activation::Linear, |activation| activation.add),
            controller: (0..layers.layers).map(layer).collect(),
            heads,
            output: Dense::linear(&layout, "output", y, h + read_heads * m, 0),
            weighting_at: (0..read_heads + write_heads).map(|head| head * n_stride).collect(),
            memory_at: (0..m).map(|column| column * n_stride).collect(),
            columns: (0..m).collect(),
            read_at: (0..read_heads).map(|head| head * m).collect(),
            head_at,
            emitted,
            starts: Starts::new(&layout, ntm.is_some_and(|ntm| ntm.init.weighting == WeightingStart::OneHot)),
            layout,
        }
    }

    /// Panics unless theta has this network's size, and each sequence of a batch a step at least.
    pub fn check(&self, theta: usize, batch: &Batch) {
        assert_eq!(theta, self.layout.size(), "theta has another network's size");
        assert!(batch.lengths.iter().all(|&steps| steps > 0), "a sequence has no steps: {:?}", batch.lengths);
    }

    /// What a layer of the controller takes in beside its own state: input and reads, or the layer below.
    pub fn below(&self, layer: usize) -> usize {
        if layer == 0 { self.x + self.read_heads * self.m } else { self.h }
    }

    /// Where a layer's own state starts in what its `Dense` passes back.
    pub fn own(&self, layer: usize) -> usize {
        1 + self.below(layer) - self.controller[layer].passed
    }

    /// Where the weighting of a head lies in a padded (R + W, N).
    #[inline(always)]
    pub fn weighting_of(&self, head: usize) -> Range<usize> {
        head * self.n_stride..(head + 1) * self.n_stride
    }

    /// R + W
    pub fn all_heads(&self) -> usize {
        self.read_heads + self.write_heads
    }
}
