//! Event files for TensorBoard.

use std::path::Path;
use tensorboard_rs::summary_writer::SummaryWriter;

pub struct Scalars {
    writer: SummaryWriter,
}

impl Scalars {
    /// A new event file in the directory.
    pub fn new(directory: &Path) -> Scalars {
        Scalars { writer: SummaryWriter::new(directory) }
    }

    /// Scalars of one step, under `group/name`.
    pub fn add<'a>(&mut self, group: &str, values: impl IntoIterator<Item = (&'a str, f64)>, step: u64) {
        for (name, value) in values {
            self.writer.add_scalar(&format!("{group}/{name}"), value as f32, step as usize);
        }
        self.writer.flush();
    }
}
