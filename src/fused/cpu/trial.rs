//! Whether threads share the work of a single sequence, found by trying.

/// Works of which the first `TRIED` are done alone, as many then shared, and the rest in the way that was faster.
const ROUND: usize = 256;
const TRIED: usize = 4;
/// How much longer than one alone a shared work may take before no other of its round is shared.
const CROWDED: f64 = 2.0;

/// Whether to share work of a few hundred microseconds, by trial: it does not pay where cores are far from each other, nor where
/// other processes want them, which a thread that waits awake would hinder.
#[derive(Default)]
pub struct Trial {
    works: usize,
    /// The least time of a step in this round.
    alone: f64,
    shared: f64,
    crowded: bool,
}

impl Trial {
    /// One that shares the next work.
    #[cfg(test)]
    pub fn sharing() -> Trial {
        Trial { works: TRIED, ..Trial::default() }
    }

    /// Whether the next work is to be shared.
    pub fn shares(&self) -> bool {
        let pays = self.works < 2 * TRIED || self.shared < self.alone;
        self.works >= TRIED && pays && !self.crowded
    }

    /// What the work that `shares` was asked for took a step.
    pub fn took(&mut self, step: f64) {
        if self.works == 0 {
            *self = Trial { works: 0, alone: f64::INFINITY, shared: f64::INFINITY, crowded: false };
        }
        if self.shares() {
            self.shared = self.shared.min(step);
            self.crowded = step > CROWDED * self.alone;
        } else {
            self.alone = self.alone.min(step);
        }
        self.works = (self.works + 1) % ROUND;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of a round's works a trial shares, if they take so many microseconds alone and shared.
    fn round(trial: &mut Trial, mut took: impl FnMut(bool, usize) -> f64) -> Vec<bool> {
        (0..ROUND)
            .map(|work| {
                let shared = trial.shares();
                trial.took(took(shared, work));
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
            for (work, shares) in shares.into_iter().enumerate() {
                let expected = if work < 2 * TRIED { work >= TRIED } else { rest };
                assert_eq!(shares, expected, "{alone} alone, {shared} shared, work {work}");
            }
        }
    }

    #[test]
    fn a_work_that_lost_its_core_while_it_was_shared_ends_the_sharing_of_its_round() {
        for at in [TRIED, 100] {
            let mut trial = Trial::default();
            let shares = round(&mut trial, |shared, work| match (shared, work == at) {
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
