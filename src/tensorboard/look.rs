//! A look at the machine with one sequence: what it saw, said, and where its heads were.

use crate::engine::Trace;
use crate::plot::covered;
use crate::replay::{Memory, MemoryShape};
use crate::tasks::Batch;

/// Pictures are at most this wide and high, in pixels.
const WIDE: usize = 640;
const HIGH: usize = 256;

/// One sequence and what the machine made of it. `batch` holds this sequence alone.
pub struct Look<'a> {
    pub batch: &'a Batch,
    pub logits: &'a [f32], // (T, 1, Y)
    pub trace: &'a Trace,
    /// The heads and the memory before the first step; none of a network without.
    pub memory: Option<(MemoryShape, Memory)>,
}

/// Eight bits a channel, row by row from the top.
pub struct Picture {
    pub tag: String,
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

impl Look<'_> {
    /// Time runs to the right; channels, values of a memory row and memory rows run down. The memory, after the last
    /// step, has its rows from top to bottom and their values to the right.
    pub fn pictures(&self) -> Vec<Picture> {
        let steps = self.batch.steps;
        let (mask, width) = (&self.batch.mask, self.logits.len() / steps);
        // 0 at the steps that do not count, as the targets have it: the two are there to be compared
        let output =
            |(i, &logit): (usize, &f32)| if mask[i / width] > 0.0 { self.batch.loss.output(logit) } else { 0.0 };
        let outputs: Vec<f32> = self.logits.iter().enumerate().map(output).collect();
        let mut pictures = vec![
            picture("look/1_inputs", steps, &self.batch.inputs),
            picture("look/2_targets", steps, &self.batch.targets),
            picture("look/3_outputs", steps, &outputs),
        ];
        let Some((shape, memory)) = &self.memory else { return pictures };
        for (index, head) in names(*shape).into_iter().enumerate() {
            let of_head = |vectors: &[f32], heads: usize, place: usize| -> Vec<f32> {
                vectors.chunks(shape.width).skip(place).step_by(heads).flatten().copied().collect()
            };
            let weightings = shape.weightings(self.trace, index);
            pictures.push(picture(&format!("look/4_weightings_{head}"), steps, &weightings));
            let (name, vectors) = match index.checked_sub(shape.read_heads) {
                None => ("5_reads", of_head(&self.trace.reads, shape.read_heads, index)),
                Some(writer) => ("6_adds", of_head(&self.trace.adds, shape.write_heads, writer)),
            };
            pictures.push(picture(&format!("look/{name}_{head}"), steps, &vectors));
        }
        let mut memory = memory.clone();
        (0..steps).for_each(|step| memory.write(self.trace, step));
        let columns = (0..shape.width).flat_map(|column| memory.values.iter().skip(column).step_by(shape.width));
        pictures.push(picture("look/7_memory", shape.width, &columns.copied().collect::<Vec<f32>>()));
        pictures
    }

    /// For each head the means over the steps of its strength, gate and sharpening, and of the entropy of its
    /// weighting.
    pub fn heads(&self) -> Vec<(String, [(&'static str, f64); 4])> {
        let Some((shape, _)) = &self.memory else { return vec![] };
        let (steps, names, rows) = (self.batch.steps, names(*shape), shape.rows);
        let means = |head: usize| {
            let places = (0..steps).map(|t| t * names.len() + head);
            let mean = |value: &dyn Fn(usize) -> f64| places.clone().map(value).sum::<f64>() / steps as f64;
            let scalar = |index: usize| mean(&|place| self.trace.scalars[place * 3 + index] as f64);
            let entropy = mean(&|place| entropy_bits(&self.trace.weightings[place * rows..][..rows]));
            [("strength", scalar(0)), ("gate", scalar(1)), ("sharpening", scalar(2)), ("entropy_bits", entropy)]
        };
        names.iter().enumerate().map(|(index, name)| (name.clone(), means(index))).collect()
    }
}

fn names(shape: MemoryShape) -> Vec<String> {
    let reads = (0..shape.read_heads).map(|head| format!("read_{head}"));
    reads.chain((0..shape.write_heads).map(|head| format!("write_{head}"))).collect()
}

fn entropy_bits(weighting: &[f32]) -> f64 {
    weighting.iter().map(|&w| w as f64).filter(|&w| w > 0.0).map(|w| -w * w.log2()).sum()
}

/// Values (columns, rows) as grey, black for the least and white for the most, each a block of pixels. Where there are
/// more values than pixels, a pixel has the largest of its own, so that a head on one row of many is seen.
fn picture(tag: &str, columns: usize, values: &[f32]) -> Picture {
    let rows = values.len() / columns;
    let (least, most) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    let scale = if most > least { 255.0 / (most - least) } else { 0.0 };
    let (width, height) = (pixels(columns, WIDE), pixels(rows, HIGH));
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let columns = covered(x, width, columns).map(|column| &values[column * rows..][..rows]);
            let largest = columns.flat_map(|column| &column[covered(y, height, rows)]).fold(least, |a, &b| a.max(b));
            rgb.extend([((largest - least) * scale).round() as u8; 3]);
        }
    }
    Picture { tag: tag.to_string(), width, height, rgb }
}

/// How many pixels show so many values: up to 16 each, or fewer pixels than values.
fn pixels(values: usize, most: usize) -> usize {
    if values > most { most } else { values * (most / values).min(16) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_values_than_pixels_show_the_largest_of_each() {
        let mut values = vec![0.0; 2 * 1000];
        values[1500] = 1.0; // column 1, row 500
        let picture = picture("x", 2, &values);
        assert_eq!((picture.width, picture.height), (32, 256));
        let white: Vec<usize> = (0..256).filter(|y| picture.rgb[(y * 32 + 16) * 3] == 255).collect();
        assert_eq!(white, [128]); // rows 500 to 503 of 1000
        assert!((0..256).all(|y| picture.rgb[(y * 32 + 15) * 3] == 0));
    }

    #[test]
    fn a_picture_has_time_to_the_right_and_a_block_of_grey_for_every_value() {
        let picture = picture("x", 2, &[0.0, 1.0, 2.0, 4.0]);
        assert_eq!((picture.width, picture.height), (32, 32));
        let grey = |x: usize, y: usize| picture.rgb[(y * 32 + x) * 3];
        assert_eq!([grey(0, 0), grey(15, 31), grey(16, 15), grey(31, 31)], [0, 64, 128, 255]);
    }

    #[test]
    fn the_entropy_of_a_sure_weighting_is_0_bits_and_of_an_even_one_over_four_rows_2() {
        assert_eq!(entropy_bits(&[0.0, 1.0, 0.0, 0.0]), 0.0);
        assert_eq!(entropy_bits(&[0.25; 4]), 2.0);
    }
}
