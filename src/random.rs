//! Every random number of a run, as a pure function of what it is for: no generator state is ever saved,
//! so a resumed run draws what the uninterrupted one would have drawn.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a stream of random numbers is for. Streams of different purposes never meet,
/// so evaluation sequences are none of the training ones.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    Weights = 1,
    TrainingShape = 2,
    TrainingSequence = 3,
    EvaluationSequence = 4,
    /// The order of own sequences in an epoch.
    DataOrder = 5,
}

/// The stream number `index` of a purpose: ChaCha with 8 rounds, its key made of seed and purpose.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = purpose as u8;
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(index);
    rng
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;

    #[test]
    fn the_same_three_numbers_give_the_same_stream_and_any_other_a_different_one() {
        let first = |seed, purpose, index| stream(seed, purpose, index).next_u64();
        let draw = first(1, Purpose::Weights, 0);
        assert_eq!(draw, first(1, Purpose::Weights, 0));
        assert_ne!(draw, first(2, Purpose::Weights, 0));
        assert_ne!(draw, first(1, Purpose::TrainingSequence, 0));
        assert_ne!(draw, first(1, Purpose::Weights, 1));
    }
}
