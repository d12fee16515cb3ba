//! A batch as the kernels take it, on the device.

use crate::flat::{self, upload};
use crate::tasks::Batch;
use anyhow::Result;
use std::cmp::Reverse;
use tch::{Device, Kind, Tensor};

pub struct Given {
    /// Steps of all sequences together.
    pub rows: usize,
    pub inputs: Tensor,       // (T, B, X)
    pub targets: Tensor,      // (T, B, Y)
    pub loss_weights: Tensor, // (T, B)
    /// Steps, first row and first snapshot of each sequence; then the numbers of all, the longest first. (4, B), i32
    pub numbers: Tensor,
    pub snapshots: usize,
}

impl Given {
    /// `y`: outputs. `segment`: steps between two snapshots. `host` is room on the host to put it together in.
    pub fn new(batch: &Batch, y: usize, segment: usize, host: &mut Tensor, options: (Kind, Device)) -> Result<Given> {
        let loss_weights = batch.loss_weights(y);
        let parts = [&batch.inputs, &batch.targets, &loss_weights];
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
        let [inputs, targets, loss_weights] = parts.map(|values| part(values));

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
        let mut order: Vec<i32> = (0..batch.size() as i32).collect();
        order.sort_by_key(|&number| Reverse(batch.lengths[number as usize]));
        numbers.extend(order);
        let numbers = upload(&Tensor::from_slice(&numbers), (Kind::Int, options.1))?;
        Ok(Given { rows, inputs, targets, loss_weights, numbers, snapshots })
    }
}

/// For each row of the tape, where its step lies in the batch's (T, B). (rows)
pub fn places(batch: &Batch, device: Device) -> Tensor {
    let size = batch.size();
    let places: Vec<i64> = (0..size).flat_map(|b| (0..batch.lengths[b]).map(move |t| (t * size + b) as i64)).collect();
    Tensor::from_slice(&places).to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_sequences_come_first_and_equal_ones_in_their_order() {
        let batch = Batch::zeros(vec![2, 5, 3, 5], 1, 1);
        let mut host = Tensor::empty([0], (Kind::Float, Device::Cpu));
        let given = Given::new(&batch, 1, 2, &mut host, (Kind::Float, Device::Cpu)).unwrap();
        let numbers: Vec<i32> = Vec::try_from(given.numbers).unwrap();
        let [lengths, first_rows, first_snapshots, order] = [0, 4, 8, 12].map(|at| &numbers[at..at + 4]);
        assert_eq!((lengths, first_rows), (&[2, 5, 3, 5][..], &[0, 2, 7, 10][..]));
        assert_eq!((first_snapshots, order), (&[0, 1, 4, 6][..], &[1, 3, 2, 0][..]));
    }
}
