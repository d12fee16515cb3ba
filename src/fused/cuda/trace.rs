//! What the heads do, read back from the tape.

use super::CudaFused;
use super::batch::places;
use crate::engine::Trace;
use crate::tasks::Batch;
use anyhow::Result;
use tch::{Device, Kind, Tensor};

impl CudaFused {
    pub(super) fn trace_of(&mut self, theta: &Tensor, batch: &Batch) -> Result<Trace> {
        let pass = self.forward_pass(theta, batch, true)?;
        let (plan, fields, places) = (&self.plan, &pass.fields, places(batch, self.options.1));
        let rows = batch.steps * batch.size();
        let reads = self.tape.view(fields.shown).narrow(1, 1 + plan.h as i64, (plan.read_heads * plan.m) as i64);
        let mut trace = Trace {
            weightings: placed(&self.tape.view(fields.weightings), &places, rows)?,
            reads: placed(&reads, &places, rows)?,
            ..Trace::default()
        };
        let emitted = placed(&self.tape.view(fields.heads), &places, rows)?;
        for row in emitted.chunks_exact(plan.heads.outputs.max(1)) {
            for (head, &at) in plan.head_at.iter().enumerate() {
                let (values, place) = (&row[at..], plan.emitted);
                trace.scalars.extend(place.scalars().map(|scalar| values[scalar]));
                if head >= plan.read_heads {
                    trace.erases.extend_from_slice(&values[place.erase()]);
                    trace.adds.extend_from_slice(&values[place.add()]);
                }
            }
        }
        Ok(trace)
    }
}

/// Values (rows, width) on the host at the places of a batch's (T, B, width).
fn placed(values: &Tensor, places: &Tensor, rows: usize) -> Result<Vec<f32>> {
    let all = Tensor::f_zeros([rows as i64, values.size()[1]], (values.kind(), values.device()))?;
    let all = all.f_index_copy(0, places, values)?.to_device(Device::Cpu).to_kind(Kind::Float);
    Ok(Vec::try_from(all.reshape([-1]))?)
}
