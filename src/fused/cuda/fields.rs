//! What a launch reads and writes: its fields in the tape, and the addresses of all that its kernels take.

use super::CudaFused;
use super::batch::Given;
use super::kernels::Buffers;
use super::shape::Shape;
use super::tape::{Field, Room};
use crate::tasks::{Batch, Loss};
use anyhow::Result;
use tch::Tensor;

/// The places of a launch's fields in the tape.
#[derive(Default)]
pub struct Fields {
    pub z: Field,
    pub gates: Field,
    pub cells: Field,
    pub tanh_cells: Field,
    pub shown: Field,
    pub heads: Field,
    pub similarity: Field,
    pub content: Field,
    pub shifted: Field,
    pub weightings: Field,
    pub inverse_norms: Field,
    pub snapshots: Field,
    pub replayed: Field,
    pub spare: Field,
    pub d_start: Field,
}

impl CudaFused {
    /// Makes room for a batch in the tape.
    pub(super) fn lay_out(
        &mut self,
        given: &Given,
        shape: &Shape,
        size: usize,
        segment: usize,
        keep: bool,
    ) -> Result<Fields> {
        let (plan, mut room) = (&self.plan, Room::default());
        let (cells, layers, weightings) = (plan.m * plan.n, plan.controller.len(), plan.all_heads() * plan.n);
        let outside = shape.sizes.memories.contains(&0);
        let mut fields = Fields {
            shown: room.field(given.rows, plan.output.inputs),
            spare: room.field(if outside { size.next_multiple_of(shape.together()) } else { 0 }, cells),
            ..Fields::default()
        };
        if keep {
            let mut field = |stride: usize| room.field(given.rows, stride);
            fields.z = field(plan.controller.iter().map(|dense| dense.inputs).sum());
            fields.gates = field(plan.controller.iter().map(|dense| dense.outputs).sum());
            fields.cells = field(layers * plan.h);
            fields.tanh_cells = field(layers * plan.h);
            fields.heads = field(plan.heads.outputs);
            fields.similarity = field(weightings);
            fields.content = field(weightings);
            fields.shifted = field(weightings);
            fields.weightings = field(weightings);
            fields.inverse_norms = field(plan.n);
            fields.snapshots = room.field(given.snapshots, cells);
            fields.replayed = room.field(size * (segment - 1), cells);
            fields.d_start = room.field(size, self.maps.start_size);
        }
        self.tape.reserve(&room)?;
        Ok(fields)
    }

    /// What the kernels of a forward pass take, but for `segment`, `keep` and the output layer. `first_memory` is (M,
    /// N), `first_weighting` (R + W, N).
    pub(super) fn buffers(
        &self,
        theta: &Tensor,
        batch: &Batch,
        given: &Given,
        fields: &Fields,
        [first_memory, first_weighting]: &[Tensor; 2],
    ) -> Buffers {
        let (plan, numbers, size) = (&self.plan, given.numbers.data_ptr() as u64, batch.size() as u64);
        let in_theta = |at: Option<usize>| {
            at.map_or(0, |at| theta.data_ptr() as u64 + (at * self.options.0.elt_size_in_bytes()) as u64)
        };
        let at = |field: Field| self.tape.address(field);
        let [scale, floor] = batch.mix(plan.s).map(|number| number as f32);
        Buffers {
            theta: theta.data_ptr() as u64,
            packed: self.packed.data_ptr() as u64,
            pack_first: self.pack_first.data_ptr() as u64,
            pack_second: self.pack_second.data_ptr() as u64,
            pack_count: self.maps.pack_first.len() as i32,
            hidden: in_theta(plan.starts.hidden),
            cell: in_theta(plan.starts.cell),
            read: in_theta(plan.starts.read),
            memory: first_memory.data_ptr() as u64,
            weighting: first_weighting.data_ptr() as u64,
            inputs: given.inputs.data_ptr() as u64,
            targets: given.targets.data_ptr() as u64,
            loss_weights: given.loss_weights.data_ptr() as u64,
            lengths: numbers,
            first_row: numbers + 4 * size,
            first_snapshot: numbers + 8 * size,
            order: numbers + 12 * size,
            z: at(fields.z),
            gates: at(fields.gates),
            cells: at(fields.cells),
            tanh_cells: at(fields.tanh_cells),
            shown: at(fields.shown),
            heads: at(fields.heads),
            similarity: at(fields.similarity),
            content: at(fields.content),
            shifted: at(fields.shifted),
            weightings: at(fields.weightings),
            inverse_norms: at(fields.inverse_norms),
            snapshots: at(fields.snapshots),
            replayed: at(fields.replayed),
            spare: at(fields.spare),
            d_start: at(fields.d_start),
            sequences: size as i32,
            steps: batch.steps as i32,
            outputs: plan.y as i32,
            squared: (batch.loss == Loss::Squared) as i32,
            scale,
            floor,
            ..Buffers::default()
        }
    }
}
