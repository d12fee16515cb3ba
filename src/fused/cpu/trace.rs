//! What the heads do, from the tapes of a forward pass.

use super::forward::Slice;
use super::{Fused, Pass};
use crate::engine::Trace;
use crate::simd::Float;
use crate::tasks::Batch;

impl<F: Float> Fused<F> {
    /// What the heads do at each step of a batch.
    pub fn trace(&mut self, theta: &[F], batch: &Batch) -> Trace {
        self.begin(theta, batch);
        self.sweep(batch, 0..batch.size(), Pass::Trace);
        let (plan, at, size) = (&self.plan, self.plan.emitted, batch.size());
        let (all, reads) = (plan.all_heads(), plan.read_heads);
        let room = |values: usize| vec![0.0; batch.steps * size * values];
        let mut trace = Trace {
            weightings: room(all * plan.n),
            scalars: room(all * 3),
            reads: room(reads * plan.m),
            erases: room(plan.write_heads * plan.m),
            adds: room(plan.write_heads * plan.m),
        };
        let put = |to: &mut [f32], place: usize, from: &[F]| {
            let to = &mut to[place * from.len()..][..from.len()];
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
        };
        let mut first = 0;
        for tape in &self.tapes {
            for b in 0..tape.lengths.len() {
                for t in 1..=tape.lengths[b] {
                    let (place, row) = (Slice { batch, first }.row(b, t), tape.row(b, t));
                    for head in 0..all {
                        let weighting = &tape.addressing.weighting.row(row)[head * plan.n_stride..][..plan.n];
                        put(&mut trace.weightings, place * all + head, weighting);
                        let emitted = &tape.heads.row(row)[plan.head_at[head]..];
                        put(&mut trace.scalars, place * all + head, &at.scalars().map(|at| emitted[at]));
                    }
                    put(&mut trace.reads, place, &tape.shown.row(row)[1 + plan.h..][..reads * plan.m]);
                    for head in reads..all {
                        let emitted = &tape.heads.row(row)[plan.head_at[head]..];
                        let place = place * plan.write_heads + head - reads;
                        put(&mut trace.erases, place, &emitted[at.erase()]);
                        put(&mut trace.adds, place, &emitted[at.add()]);
                    }
                }
            }
            first += tape.lengths.len();
        }
        trace
    }
}
