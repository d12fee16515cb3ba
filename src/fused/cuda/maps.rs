//! Where each packed weight comes from in theta, and where each element of theta's gradient comes from.

use crate::fused::plan::{Dense, Plan};

/// The place of one matrix's gradient d_W (outputs, inputs) in the flat vector of all gradients.
pub struct Slot {
    pub at: usize,
    pub outputs: usize,
    pub inputs: usize,
}

impl Slot {
    fn size(&self) -> usize {
        self.outputs * self.inputs
    }
}

/// The flat vector holds d_W of the controller's layers, the heads (where there are any) and the output, then the
/// gradients of the first state as `Sizes::start` in machine.cu orders them, then a 0 for what is not learned.
pub struct Maps {
    /// For each packed weight its place in theta or -1 for a 0, and that of what is added to it or -1.
    pub pack_first: Vec<i32>,
    pub pack_second: Vec<i32>,
    pub slots: Vec<Slot>,
    pub start: usize,
    pub start_size: usize,
    /// For each element of theta its place in the flat vector.
    pub unpack: Vec<i64>,
}

/// The matrices that the kernels multiply by.
fn packed(plan: &Plan) -> impl Iterator<Item = &Dense> {
    plan.controller.iter().chain((plan.n > 0).then_some(&plan.heads))
}

impl Maps {
    pub fn new(plan: &Plan) -> Maps {
        let mut maps =
            Maps { pack_first: vec![], pack_second: vec![], slots: vec![], start: 0, start_size: 0, unpack: vec![] };
        for dense in packed(plan) {
            maps.pack(dense);
        }
        maps.unpack = vec![-1; plan.layout.size()];
        for dense in packed(plan).chain([&plan.output]) {
            let slot = Slot { at: maps.start, outputs: dense.outputs, inputs: dense.inputs };
            for (row, column, place) in dense.elements() {
                maps.unpack[place] = (slot.at + row * dense.inputs + column) as i64;
            }
            maps.start += slot.size();
            maps.slots.push(slot);
        }
        maps.first_state(plan);
        let zero = (maps.start + maps.start_size) as i64;
        maps.unpack.iter_mut().filter(|place| **place < 0).for_each(|place| *place = zero);
        maps
    }

    /// The length of the flat vector.
    pub fn size(&self) -> usize {
        self.start + self.start_size + 1
    }

    /// W^T (K, J), then W (J, K), rows padded to a multiple of 4.
    fn pack(&mut self, dense: &Dense) {
        let (tall, wide) = (dense.outputs.next_multiple_of(4), dense.inputs.next_multiple_of(4));
        let transposed = self.pack_first.len();
        let plain = transposed + dense.inputs * tall;
        self.pack_first.resize(plain + dense.outputs * wide, -1);
        self.pack_second.resize(self.pack_first.len(), -1);
        for (row, column, place) in dense.elements() {
            for at in [transposed + column * tall + row, plain + row * wide + column] {
                let map = if self.pack_first[at] < 0 { &mut self.pack_first } else { &mut self.pack_second };
                map[at] = place as i32;
            }
        }
    }

    fn first_state(&mut self, plan: &Plan) {
        let layers = if plan.recurrent { plan.controller.len() * plan.h } else { 0 };
        let (reads, weightings, cells) = (plan.read_heads * plan.m, plan.all_heads() * plan.n, plan.m * plan.n);
        let mut next = self.start;
        let mut part = |at: Option<usize>, size: usize| {
            for i in 0..at.map_or(0, |_| size) {
                self.unpack[at.unwrap_or(0) + i] = (next + i) as i64;
            }
            next += size;
        };
        part(plan.starts.hidden, layers);
        part(plan.starts.cell, layers);
        part(plan.starts.read, reads);
        part(plan.starts.weighting, weightings);
        if let Some((at, true)) = plan.starts.memory {
            for e in 0..cells {
                let (m, i) = (e / plan.n, e % plan.n); // (M, N) in theta (N, M)
                self.unpack[at + i * plan.m + m] = (next + e) as i64;
            }
        }
        self.start_size = next + cells - self.start;
    }
}
