//! Whether threads share the work of a single sequence, found by trying.

/// The updates of a round. Of these the first `TRIED` are done alone, the next `TRIED` are shared, and the rest are
/// done in the way that was faster.
const ROUND: usize = 256;
const TRIED: usize = 4;
/// A shared update that takes this many times as long as one alone ends the sharing for its round.
const CROWDED: f64 = 2.0;

/// Finds out by trying whether to share updates that take a few hundred microseconds. Sharing does not pay where cores
/// are far from each other. Nor does it where other processes want the cores, which a thread that waits awake keeps
/// from them.
#[derive(Default)]
pub struct Trial {
    /// Done in this round.
    updates: usize,
    /// The shortest time of a step in this round, in updates done alone and in shared ones.
    alone: f64,
    shared: f64,
    crowded: bool,
}

impl Trial {
    /// One that shares the next update.
    #[cfg(test)]
    pub fn sharing() -> Trial {
        Trial { updates: TRIED, ..Trial::default() }
    }

    /// Whether the next update is to be shared.
    pub fn shares(&self) -> bool {
        let pays = self.updates < 2 * TRIED || self.shared < self.alone;
        self.updates >= TRIED && pays && !self.crowded
    }

    /// Reports how long a step took in the update that `shares` was asked about.
    pub fn took(&mut self, step: f64) {
        if self.updates == 0 {
            *self = Trial { updates: 0, alone: f64::INFINITY, shared: f64::INFINITY, crowded: false };
        }
        if self.shares() {
            self.shared = self.shared.min(step);
            self.crowded = step > CROWDED * self.alone;
        } else {
            self.alone = self.alone.min(step);
        }
        self.updates = (self.updates + 1) % ROUND;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of a round's updates a trial shares, if `took` is their time, given whether one is shared and its number.
    fn round(trial: &mut Trial, mut took: impl FnMut(bool, usize) -> f64) -> Vec<bool> {
        (0..ROUND)
            .map(|update| {
                let shared = trial.shares();
                trial.took(took(shared, update));
                shared
            })
            .collect()
    }

    #[test]
    fn a_trial_shares_where_that_is_faster_and_tries_again_each_round() {
        let mut trial = Trial::default();
        for (alone, shared) in [(7.0, 6.0), (7.0, 8.0), (7.0, 6.0), (6.0, 7.0)] {
            let shares = round(&mut trial, |is_shared, _| if is_shared { shared } else { alone });
            let rest = shared < alone;
            for (update, shares) in shares.into_iter().enumerate() {
                let expected = if update < 2 * TRIED { update >= TRIED } else { rest };
                assert_eq!(shares, expected, "{alone} alone, {shared} shared, update {update}");
            }
        }
    }

    #[test]
    fn an_update_that_lost_its_core_while_it_was_shared_ends_the_sharing_of_its_round() {
        for at in [TRIED, 100] {
            let mut trial = Trial::default();
            let shares = round(&mut trial, |shared, update| match (shared, update == at) {
                (true, true) => 3000.0,
                (true, false) => 6.0,
                _ => 7.0,
            });
            assert!(shares[at] && !shares[at + 1..].contains(&true), "at {at}");
            let next = round(&mut trial, |shared, _| if shared { 6.0 } else { 7.0 });
            assert!(next[2 * TRIED..].iter().all(|shares| *shares));
        }
    }
}
