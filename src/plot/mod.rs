//! Pictures for people: the paper's figure of one sequence, error over an axis, learning curves, the heads in motion.
//!
//! A picture is a value that knows its size and draws itself; `canvas` makes a file of it. Nothing here runs a
//! network.

mod animation;
mod canvas;
mod colour;
mod curve;
mod gif;
mod heat;
mod learning;
mod legend;
mod lines;
mod numbers;
mod runs;
mod scatter;
mod sequence;
mod window;

pub use animation::{Shown, animate};
pub use canvas::save;
pub use curve::Curve;
pub use heat::covered;
pub use learning::LearningCurves;
pub use runs::read_runs;
pub use sequence::{Beside, SequenceFigure};
