//! A batch as the kernels take it, on the device.

use crate::flat::{self, upload};
use crate::tasks::Batch;
use anyhow::Result;
use tch::{Device, Kind, Tensor};

pub struct Given {
    /// Steps of all sequences together.
    pub rows: usize,
    pub inputs: Tensor,  // (T, B, X)
    pub targets: Tensor, // (T, B, Y)
    pub mask: Tensor,    // (T, B)
    /// What an output that counts weighs in the training loss, see `Batch::loss_weights`. (B)
    pub scale: Tensor,
    /// Steps, first row and first snapshot of each sequence. (3, B), i32
    pub numbers: Tensor,
    pub snapshots: usize,
}

impl Given {
    /// `segment`: steps between two snapshots. `host` is room on the host to put it together in.
    pub fn new(batch: &Batch, segment: usize, host: &mut Tensor, options: (Kind, Device)) -> Result<Given> {
        let scale = scale(batch);
        let parts = [&batch.inputs, &batch.targets, &batch.mask, &scale];
        let size: usize = parts.iter().map(|part| part.len()).sum();
        if host.size1()? < size as i64 {
            *host = Tensor::f_empty([size as i64], (Kind::Float, Device::Cpu))?;
        }
        let mut rest = flat::values_mut(host).unwrap_or_default();
        for part in parts {
            let (place, others) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = others;
        }
        let values = upload(&host.narrow(0, 0, size as i64), options)?;
        let mut next = 0;
        let mut part = |values_of: &[f32]| {
            let at = next;
            next += values_of.len() as i64;
            values.narrow(0, at, values_of.len() as i64)
        };
        let [inputs, targets, mask, scale] = parts.map(|values| part(values));

        let mut numbers: Vec<i32> = batch.lengths.iter().map(|&steps| steps as i32).collect();
        let mut running = |of: &dyn Fn(usize) -> usize| {
            let mut sum = 0;
            numbers.extend(batch.lengths.iter().map(|&steps| {
                let start = sum as i32;
                sum += of(steps);
                start
            }));
            sum
        };
        let rows = running(&|steps| steps);
        let snapshots = running(&|steps| steps.div_ceil(segment));
        let numbers = upload(&Tensor::from_slice(&numbers), (Kind::Int, options.1))?;
        Ok(Given { rows, inputs, targets, mask, scale, numbers, snapshots })
    }
}

/// 1 / (B * masked steps of the sequence * Y) of each sequence.
fn scale(batch: &Batch) -> Vec<f32> {
    let (size, y) = (batch.size(), batch.targets.len() / batch.mask.len().max(1));
    let mut masked_steps = vec![0.0_f32; size];
    for step in batch.mask.chunks_exact(size) {
        masked_steps.iter_mut().zip(step).for_each(|(sum, mask)| *sum += mask);
    }
    masked_steps.iter().map(|&steps| 1.0 / (size * y) as f32 / steps.max(1.0)).collect()
}

/// For each row of the tape, where its step lies in the batch's (T, B). (rows)
pub fn places(batch: &Batch, device: Device) -> Tensor {
    let size = batch.size();
    let places: Vec<i64> = (0..size).flat_map(|b| (0..batch.lengths[b]).map(move |t| (t * size + b) as i64)).collect();
    Tensor::from_slice(&places).to_device(device)
}
