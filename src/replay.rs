//! The memory at each step, which a trace leaves out: replayed from what the heads wrote.

use crate::engine::Trace;
use crate::model::{CONSTANT_MEMORY, Config, Layout, NtmConfig};

/// The sizes of a machine that the pictures of its trace need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryShape {
    pub rows: usize,
    pub width: usize,
    pub read_heads: usize,
    pub write_heads: usize,
}

impl MemoryShape {
    /// None for a network without memory.
    pub fn of(config: &Config) -> Option<MemoryShape> {
        let Config::Ntm(NtmConfig { memory, read_heads, write_heads, .. }) = config else { return None };
        Some(MemoryShape { rows: memory.rows, width: memory.width, read_heads: *read_heads, write_heads: *write_heads })
    }

    pub fn heads(self) -> usize {
        self.read_heads + self.write_heads
    }

    /// A head's weightings (T, N) of one sequence, read heads first.
    pub fn weightings(self, trace: &Trace, head: usize) -> Vec<f32> {
        trace.weightings.chunks(self.rows).skip(head).step_by(self.heads()).flatten().copied().collect()
    }
}

#[derive(Clone)]
pub struct Memory {
    shape: MemoryShape,
    pub values: Vec<f32>, // (N, M)
}

impl Memory {
    /// Before the first step.
    pub fn start(shape: MemoryShape, layout: &Layout, theta: &[f32]) -> Memory {
        let values = match layout.parameters.iter().find(|parameter| parameter.name == "init.memory") {
            Some(parameter) => theta[parameter.range()].to_vec(),
            None => vec![CONSTANT_MEMORY as f32; shape.rows * shape.width],
        };
        Memory { shape, values }
    }

    /// What the write heads do at a step of one sequence, in head order.
    /// Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a
    pub fn write(&mut self, trace: &Trace, step: usize) {
        let MemoryShape { rows, width, read_heads, write_heads } = self.shape;
        for head in 0..write_heads {
            let weighting = &trace.weightings[(step * self.shape.heads() + read_heads + head) * rows..][..rows];
            let vector = (step * write_heads + head) * width;
            let (erase, add) = (&trace.erases[vector..][..width], &trace.adds[vector..][..width]);
            for (row, weight) in self.values.chunks_mut(width).zip(weighting) {
                for ((value, erase), add) in row.iter_mut().zip(erase).zip(add) {
                    *value = *value * (1.0 - weight * erase) + weight * add;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composed::Composed;
    use crate::config::Recipe;
    use crate::engine::Engine;
    use crate::tasks::Source;
    use tch::Tensor;

    #[test]
    fn what_the_heads_read_is_in_the_replayed_memory() {
        for start in ["constant", "learned"] {
            let text = format!(
                r#"{{"model": {{"read_heads": 2, "write_heads": 2, "controller": {{"hidden": 7}},
                    "memory": {{"rows": 5, "width": 3}}, "init": {{"memory": "{start}"}}}}}}"#
            );
            let recipe = Recipe::parse(&text, &[]).unwrap();
            let (layout, shape) = (recipe.layout(), MemoryShape::of(&recipe.model).unwrap());
            let theta = layout.initial_theta(1);
            let mut source = Source::open(&recipe.task).unwrap();
            let batch = source.evaluation_batch(1, &recipe.task.sample(), 0, 1).unwrap();
            let mut engine = Composed::new(recipe.network());
            let trace = engine.trace(&Tensor::from_slice(&theta), &batch).unwrap();
            let mut memory = Memory::start(shape, &layout, &theta);
            for step in 0..batch.steps {
                for head in 0..2 {
                    let weighting = &trace.weightings[(step * 4 + head) * 5..][..5];
                    let read = &trace.reads[(step * 2 + head) * 3..][..3];
                    for (column, value) in read.iter().enumerate() {
                        // Eq. 2: r = sum_i w(i) M_i, of the memory before this step's writes
                        let sum: f32 = (0..5).map(|row| weighting[row] * memory.values[row * 3 + column]).sum();
                        assert!((sum - value).abs() < 1e-5, "{start}, step {step}, head {head}: {sum}, read {value}");
                    }
                }
                memory.write(&trace, step);
            }
        }
    }
}
