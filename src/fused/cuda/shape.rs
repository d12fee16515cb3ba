//! How blocks run a machine: the sequences of one, and what it keeps in shared memory.

use super::kernels::{Blocks, MOST_SUMS, Sizes};
use crate::fused::plan::{Dense, Plan};
use crate::model::{Activation, Spec};
use tch::Kind;

/// How blocks run a machine: what the kernels are compiled for, and the shared memory of forward and backward in
/// values.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub sizes: Sizes,
    pub shared: [usize; 2],
}

impl Shape {
    /// `new` of a network between inputs and outputs of these widths.
    pub fn of(spec: Spec, blocks: Blocks) -> Result<Shape, usize> {
        Shape::new(&Plan::new(spec), blocks, blocks, Kind::Float)
    }

    /// The best one: blocks as `wanted`, with fewer sequences together, down to two, until memories fit into shared
    /// memory; else two sequences with the room of a `single` block, else one. Where that does not fit either, the
    /// bytes that it needs.
    pub(super) fn new(plan: &Plan, wanted: Blocks, single: Blocks, kind: Kind) -> Result<Shape, usize> {
        let size = kind.elt_size_in_bytes();
        let with = |blocks: Blocks| Shape::with(plan, blocks, blocks.shared / size);
        let fewer = std::iter::successors(Some(wanted.together), |together| Some(together / 2)).take_while(|&n| n > 1);
        let two = Blocks { together: wanted.together.min(2), ..single };
        let shapes = fewer.map(|together| Blocks { together, ..wanted }).chain([two]).map(with);
        let holding = |shape: &Shape| !shape.sizes.memories.contains(&0);
        let last = || with(Blocks { together: 1, ..single }).map_err(|needed| needed * size);
        shapes.flatten().find(holding).map_or_else(last, Ok)
    }

    /// The one for just these blocks, with `limit` values of shared memory each. An error is how many they need.
    fn with(plan: &Plan, blocks: Blocks, limit: usize) -> Result<Shape, usize> {
        let (together, cells) = (blocks.together, blocks.together * padded(plan.m * plan.n));
        let vectors = [forward_vectors(plan, blocks), backward_vectors(plan, blocks)];
        if let Some(&needed) = vectors.iter().find(|&&needed| needed > limit) {
            return Err(needed);
        }
        let memories = [1, 2].map(|most: usize| ((limit - vectors[most - 1]) / cells.max(1)).min(most));
        let used = [0, 1].map(|back| vectors[back] + memories[back] * cells);
        let room = [0, 1].map(|back| ((limit - used[back]) / 4 * 4).min(weights(plan, back)));
        let sizes = Sizes {
            x: plan.x as i32,
            n: plan.n as i32,
            m: plan.m as i32,
            h: plan.h as i32,
            s: plan.s as i32,
            reads: plan.read_heads as i32,
            writes: plan.write_heads as i32,
            layers: plan.controller.len() as i32,
            recurrent: plan.recurrent as i32,
            key_tanh: (plan.key == Activation::Tanh) as i32,
            add_tanh: (plan.add == Activation::Tanh) as i32,
            threads: blocks.threads as i32,
            blocks: blocks.at_once as i32,
            together: together as i32,
            memories: memories.map(|count| count as i32),
            room: room.map(|room| room as i32),
        };
        Ok(Shape { sizes, shared: [used[0] + room[0], used[1] + room[1]] })
    }

    pub fn together(&self) -> usize {
        self.sizes.together as usize
    }
}

fn padded(size: usize) -> usize {
    size.next_multiple_of(4)
}

/// Values of all matrices that a kernel multiplies by, W^T forward and W back, rows padded.
fn weights(plan: &Plan, back: usize) -> usize {
    let size = |dense: &Dense| {
        let sizes = [dense.inputs, dense.outputs];
        sizes[back] * padded(sizes[1 - back])
    };
    plan.controller.iter().chain((plan.n > 0).then_some(&plan.heads)).map(size).sum()
}

/// Values of shared memory that `ntm_forward` takes without memories and weights.
fn forward_vectors(plan: &Plan, blocks: Blocks) -> usize {
    let rows = plan.all_heads() * plan.n;
    let outputs = widest(plan, |dense| dense.outputs).max(plan.heads.outputs);
    let z: usize = plan.controller.iter().map(|dense| dense.inputs).sum();
    let layers = plan.controller.len() * plan.h;
    let sizes = [1, 1, 1, z, layers, plan.output.inputs, plan.heads.outputs, rows, rows];
    vectors(&sizes, outputs, blocks) + padded(2 * blocks.threads / blocks.lanes)
}

/// Values of shared memory that `ntm_backward` takes without memories and weights.
fn backward_vectors(plan: &Plan, blocks: Blocks) -> usize {
    let rows = plan.all_heads() * plan.n;
    let layers = plan.controller.len() * plan.h;
    let inputs = widest(plan, |dense| dense.inputs).max(plan.heads.inputs);
    let (reads, emitted) = (plan.read_heads * plan.m, plan.heads.outputs);
    let outputs = widest(plan, |dense| dense.outputs);
    let passed_on = [1, 1, 1, rows, reads, layers, layers, emitted, outputs, plan.h, plan.all_heads()];
    let gates = plan.controller.iter().map(|dense| dense.outputs).sum();
    let staged = [emitted, rows, rows, rows, rows, rows, plan.n, gates, layers, layers, plan.h + reads];
    let warps = blocks.threads / blocks.lanes;
    vectors(&[&passed_on[..], &staged].concat(), inputs, blocks) + padded(2 * warps) + padded(2 * MOST_SUMS * warps)
}

/// Vectors of a sequence, for all of a block, and the partial sums of a product.
fn vectors(sizes: &[usize], widest: usize, Blocks { threads, together, .. }: Blocks) -> usize {
    let partial = padded(padded(widest) * together).max(4 * together.min(4) * threads);
    sizes.iter().map(|&size| padded(size * together)).sum::<usize>() + partial
}

fn widest(plan: &Plan, of: impl Fn(&Dense) -> usize) -> usize {
    plan.controller.iter().map(of).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Recipe;

    #[test]
    fn where_four_sequences_do_not_fit_half_a_multiprocessor_two_have_all_of_it() {
        let recipe = Recipe::load("copy", &[]).unwrap();
        let plan = Plan::new(recipe.network());
        for (kilobytes, expected) in [(227, [256, 4, 2]), (163, [256, 2, 2]), (99, [384, 2, 1])] {
            let on_card = |sequences| Blocks::on_card(sequences, 128, kilobytes * 1024);
            let Sizes { threads, together, blocks, .. } =
                Shape::new(&plan, on_card(1024), on_card(1), Kind::Float).unwrap().sizes;
            assert_eq!([threads, together, blocks], expected, "{kilobytes} kB");
        }
    }
}
