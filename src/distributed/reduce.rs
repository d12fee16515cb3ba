//! What ranks add up: the gradient of a step, and the sums of what each has measured.

use super::STOPS;
use super::group::{Group, Joined};
use super::lost::lost;
use anyhow::{Context, Result, bail};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// What a step has come to on all ranks together.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Whether the loss of every rank is a finite number.
    pub finite: bool,
    /// The signal that asked a rank to stop, the first of `STOPS` if several did.
    pub stopped: Option<i32>,
}

impl Group {
    /// The sequences of a batch that are this rank's: as even as can be, the first ranks one more.
    pub fn slice(&self, batch: usize) -> Range<usize> {
        let start = |rank: usize| rank * (batch / self.size) + rank.min(batch % self.size);
        start(self.rank)..start(self.rank + 1)
    }

    /// The one all-reduce of a step: each rank's gradient of the mean over its slice becomes that of the mean over the
    /// batch, of which the slice is `part`; `loss` is a scalar of the rank, `stop` the signal that asks it to stop. On
    /// cards NCCL does it, once `use_cards` has been called; else a gradient on a card goes through the host, where
    /// Gloo's network is.
    pub fn step(&self, gradient: &mut Tensor, part: f64, loss: &Tensor, stop: Option<i32>) -> Result<Step> {
        let Some(Joined { gloo, nccl, .. }) = &self.joined else { bail!("a process alone has nothing to reduce") };
        let (by, device) = match nccl {
            Some(nccl) => (nccl, gradient.device()),
            None => (gloo, Device::Cpu),
        };
        let size = gradient.numel() as i64;
        let there = |tensor: &Tensor| tensor.to_device(device).to_kind(Kind::Float);
        let asked = Tensor::from_slice(&STOPS.map(|signal| (stop == Some(signal)) as u8 as f32));
        let mut all = Tensor::f_cat(&[&there(&(&*gradient * part)), &there(&loss.reshape([1])), &there(&asked)], 0)?;
        by.sum(&mut all).map_err(|error| lost(&error))?;
        gradient.copy_(&all.narrow(0, 0, size));
        let beside: Vec<f64> = Vec::try_from(all.slice(0, size, None, 1).to_kind(Kind::Double))?;
        let asked = STOPS.into_iter().zip(&beside[1..]).find(|(_, ranks)| **ranks > 0.0);
        Ok(Step { finite: beside[0].is_finite(), stopped: asked.map(|(signal, _)| signal) })
    }

    /// Makes each row the sum of that row on all ranks, the values that a rank has none of being 0. All have as many
    /// rows.
    pub fn sum(&self, rows: &mut [Vec<f64>]) -> Result<()> {
        let Some(Joined { gloo, .. }) = &self.joined else { return Ok(()) };
        if rows.is_empty() {
            return Ok(());
        }
        let mut lengths = Tensor::from_slice(&rows.iter().map(|row| row.len() as i64).collect::<Vec<_>>());
        gloo.largest(&mut lengths).map_err(|error| lost(&error))?;
        let lengths: Vec<i64> = Vec::try_from(lengths).context("lengths of all ranks")?;
        rows.iter_mut().zip(&lengths).for_each(|(row, &length)| row.resize(length as usize, 0.0));
        let mut all = Tensor::from_slice(&rows.concat());
        if all.numel() > 0 {
            gloo.sum(&mut all).map_err(|error| lost(&error))?;
        }
        let sums: Vec<f64> = Vec::try_from(all).context("sums of all ranks")?;
        let mut sums = sums.into_iter();
        rows.iter_mut().flatten().zip(&mut sums).for_each(|(value, sum)| *value = sum);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::testing::{joined, ranks};
    use signal_hook::consts::{SIGINT, SIGTERM};

    fn zeros() -> Tensor {
        Tensor::zeros([1], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn gradients_of_slices_become_that_of_the_batch() {
        let gradients = ranks(3, |place| {
            let group = joined(&place);
            let part = group.slice(4).len() as f64 / 4.0; // 2, 1 and 1 sequences
            let mut gradient = Tensor::from_slice(&[1.0 + place.rank as f32, 8.0]);
            group.step(&mut gradient, part, &Tensor::from(2.5f32), None).unwrap();
            Vec::<f32>::try_from(&gradient).unwrap()
        });
        for gradient in gradients {
            assert_eq!(gradient, [0.5 * 1.0 + 0.25 * 2.0 + 0.25 * 3.0, 8.0]);
        }
    }

    #[test]
    fn a_stop_on_one_rank_stops_all_after_the_same_step() {
        let stops = ranks(3, |place| {
            let group = joined(&place);
            let step = |stop| group.step(&mut zeros(), 1.0, &Tensor::from(0f32), stop).unwrap().stopped;
            [step(None), step([None, Some(SIGTERM), Some(SIGINT)][place.rank])]
        });
        for stopped in stops {
            assert_eq!(stopped, [None, Some(SIGINT)]);
        }
    }

    #[test]
    fn a_loss_that_is_not_finite_on_one_rank_is_known_to_all() {
        let finite = ranks(3, |place| {
            let group = joined(&place);
            let step = |loss: f32| group.step(&mut zeros(), 1.0, &Tensor::from(loss), None).unwrap().finite;
            [step(2.5), step(if place.rank == 1 { f32::NAN } else { 2.5 })]
        });
        for finite in finite {
            assert_eq!(finite, [true, false]);
        }
    }

    #[test]
    fn rows_of_different_lengths_are_summed() {
        let all = ranks(3, |place| {
            let group = joined(&place);
            let mut rows = vec![vec![1.0; place.rank + 1], vec![], vec![place.rank as f64]];
            group.sum(&mut rows).unwrap();
            rows
        });
        for rows in all {
            assert_eq!(rows, [vec![3.0, 2.0, 1.0], vec![], vec![3.0]]);
        }
    }

    #[test]
    fn slices_cover_a_batch_once_and_as_evenly_as_can_be() {
        for (size, batch) in [(1, 5), (3, 3), (4, 6), (5, 64)] {
            let slices: Vec<_> = (0..size).map(|rank| Group { rank, size, joined: None }.slice(batch)).collect();
            assert_eq!(slices.iter().cloned().flatten().collect::<Vec<_>>(), (0..batch).collect::<Vec<_>>());
            assert!(slices.iter().all(|slice| slice.len() == batch / size || slice.len() == batch / size + 1));
        }
    }
}
