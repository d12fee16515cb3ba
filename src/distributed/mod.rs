//! Several processes that train together, as torch.distributed has them: a job has K ranks, a process each, which find
//! each other by the environment that torchrun sets. Rank 0 leads: it writes, and says what there is to say.

mod agree;
mod board;
mod group;
mod lost;
mod place;
mod reduce;
#[cfg(test)]
mod testing;

pub use board::Board;
pub use group::Group;
pub use lost::Lost;
pub use place::{Place, launched};
pub use reduce::Step;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The signals that ask a run to stop.
pub const STOPS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
