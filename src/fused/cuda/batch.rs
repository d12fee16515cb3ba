//! A batch as the kernels take it: the real steps of one sequence after another, without padding, on the device.

use crate::flat::upload;
use crate::tasks::Batch;
use anyhow::Result;
use tch::{Device, Kind, Tensor};

pub struct Given {
    /// Steps of all sequences together.
    pub rows: usize,
    pub inputs: Tensor,       // (rows, X)
    pub targets: Tensor,      // (rows, Y)
    pub loss_weights: Tensor, // (rows, 1)
    /// Steps, first row and first snapshot of each sequence. (3, B), i32
    pub numbers: Tensor,
    pub snapshots: usize,
    /// Where each row lies in the batch's (T, B). (rows)
    pub places: Tensor,
}

impl Given {
    pub fn new(batch: &Batch, x: usize, y: usize, segment: usize, options: (Kind, Device)) -> Result<Given> {
        let size = batch.size();
        let places: Vec<i64> =
            (0..size).flat_map(|b| (0..batch.lengths[b]).map(move |t| (t * size + b) as i64)).collect();
        let rows = places.len();
        let loss_weights = batch.loss_weights(y);
        let mut values = Vec::with_capacity(rows * (x + y + 1));
        for (from, width) in [(&batch.inputs, x), (&batch.targets, y), (&loss_weights, 1)] {
            for &place in &places {
                values.extend_from_slice(&from[place as usize * width..][..width]);
            }
        }
        let mut numbers: Vec<i32> = batch.lengths.iter().map(|&steps| steps as i32).collect();
        let running = |of: &dyn Fn(usize) -> usize| -> (Vec<i32>, usize) {
            let mut sum = 0;
            let starts = batch.lengths.iter().map(|&steps| {
                let start = sum as i32;
                sum += of(steps);
                start
            });
            (starts.collect(), sum)
        };
        let (first_rows, _) = running(&|steps| steps);
        let (first_snapshots, snapshots) = running(&|steps| steps.div_ceil(segment));
        numbers.extend(first_rows);
        numbers.extend(first_snapshots);

        let values = upload(&values, options)?;
        let part = |from: usize, width: usize| {
            values.narrow(0, (rows * from) as i64, (rows * width) as i64).view([rows as i64, width as i64])
        };
        Ok(Given {
            rows,
            inputs: part(0, x),
            targets: part(x, y),
            loss_weights: part(x + y, 1),
            numbers: upload(&numbers, (Kind::Int, options.1))?,
            snapshots,
            places: upload(&places, (Kind::Int64, options.1))?,
        })
    }
}
