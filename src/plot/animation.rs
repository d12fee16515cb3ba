//! The heads in motion: a frame a step, with the memory and what each head points at.
//!
//!     inputs so far     ............
//!     outputs so far    ............
//!     read weightings | memory (rows down, values across) | write weightings

use super::canvas::{Area, Drawn, LARGE, NORMAL, Picture, SMALL, pixels, text, upwards};
use super::colour::{INK, Scale};
use super::gif::Writer;
use super::heat::{Heat, Rect, TIME_AXIS, colour_bar, frame, image, round_step};
use super::sequence::{outputs, panel_height, panel_width};
use super::window::Window;
use crate::engine::Trace;
use crate::files::write_atomically;
use crate::replay::{Memory, MemoryShape};
use crate::tasks::Batch;
use anyhow::Result;
use plotters::backend::DrawingBackend;
use plotters::element::{PathElement, Polygon};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, WHITE};
use std::path::Path;

/// A longer sequence is shown by every second, third, ... of its steps.
pub const MAX_FRAMES: usize = 150;
/// How long a frame and the last one are shown, in hundredths of a second.
const DELAY: u16 = 8;
const LAST_DELAY: u16 = 250;

/// Pixels of a head's weighting, and of the pointer beside it.
const STRIP: i32 = 24;
const POINTER: i32 = 14;
const LEFT: i32 = 78;
const TOP: i32 = 106;

/// One sequence (a batch of one) and what the heads did with it.
pub struct Shown<'a> {
    pub title: String,
    pub batch: &'a Batch,
    pub logits: &'a [f32], // (T, 1, Y)
    pub shape: MemoryShape,
    pub trace: &'a Trace,
}

/// Writes a GIF, given the memory before the first step; returns every how many steps it shows one.
pub fn animate(shown: &Shown, start: &Memory, path: &Path) -> Result<usize> {
    let steps = shown.batch.steps;
    let every = steps.div_ceil(MAX_FRAMES);
    let stage = Stage::new(shown, start, every);
    let (width, height) = stage.size;
    let mut gif = Writer::new((width as u16, height as u16))?;
    let mut memory = start.clone();
    for step in 0..steps {
        memory.write(shown.trace, step);
        let last = step + 1 == steps;
        if last || (step + 1).is_multiple_of(every) {
            let pixels = pixels(&Still { stage: &stage, memory: &memory, step })?;
            gif.add(&pixels, if last { LAST_DELAY } else { DELAY })?;
        }
    }
    write_atomically(path, &gif.finish()?)?;
    Ok(every)
}

/// What all frames share.
struct Stage<'a> {
    shown: &'a Shown<'a>,
    every: usize,
    size: (u32, u32),
    inputs: (Heat, Rect),
    outputs: (Heat, Rect),
    window: Window,
    memory: Rect,
    scale: Scale,
}

impl<'a> Stage<'a> {
    fn new(shown: &'a Shown<'a>, start: &Memory, every: usize) -> Stage<'a> {
        let (shape, steps) = (shown.shape, shown.batch.steps);
        let inputs = Heat::inputs("inputs so far", steps, &shown.batch.inputs);
        let outputs = Heat::new("outputs so far", "channel", steps, outputs(shown.batch, shown.logits));
        let over_time = |y: i32, heat: &Heat| Rect {
            x: LEFT,
            y,
            width: panel_width(steps),
            height: panel_height(heat.rows(), 64, 128),
        };
        let input_at = over_time(TOP, &inputs);
        let output_at = over_time(input_at.y + input_at.height + 40, &outputs);

        let window = Window::of(&shown.trace.weightings, shape.rows);
        let memory = Rect {
            x: LEFT + shape.read_heads as i32 * (STRIP + POINTER) + 8,
            y: output_at.y + output_at.height + TIME_AXIS + 44,
            width: panel_height(shape.width, 240, 400),
            height: panel_height(window.count, 320, 512),
        };
        let right = memory.x + memory.width + 8 + shape.write_heads as i32 * (STRIP + POINTER) + 90;
        let size = ((input_at.x + input_at.width + 72).max(right) as u32, (memory.y + memory.height + 36) as u32);

        let mut most = 0.0f32;
        let mut now = start.clone();
        for step in 0..steps {
            now.write(shown.trace, step);
            most = now.values.iter().fold(most, |most, value| most.max(value.abs()));
        }
        let scale = Scale::Around0(most.max(f32::MIN_POSITIVE));
        Stage { shown, every, size, inputs: (inputs, input_at), outputs: (outputs, output_at), window, memory, scale }
    }

    /// The row of the memory that a row of pixels shows.
    fn row(&self, pixel: i32) -> usize {
        let row = pixel as usize * self.window.count / self.memory.height as usize;
        (self.window.first + row) % self.shown.shape.rows
    }

    /// Where the weighting of a head is drawn: those of read heads left of the memory, those of write heads right of
    /// it.
    fn strip(&self, head: usize) -> Rect {
        let reads = self.shown.shape.read_heads;
        let x = if head < reads {
            LEFT + head as i32 * (STRIP + POINTER)
        } else {
            self.memory.x + self.memory.width + 8 + POINTER + (head - reads) as i32 * (STRIP + POINTER)
        };
        Rect { x, width: STRIP, ..self.memory }
    }
}

/// One frame: after the writes of a step.
struct Still<'a> {
    stage: &'a Stage<'a>,
    memory: &'a Memory,
    step: usize,
}

impl Picture for Still<'_> {
    fn size(&self) -> (u32, u32) {
        self.stage.size
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB> {
        let Stage { shown, every, inputs, outputs, memory, .. } = self.stage;
        area.draw_text(&shown.title, &text(LARGE, HPos::Left, VPos::Top), (16, 12))?;
        let shown_steps = if *every == 1 { String::new() } else { format!("; one step of {every} is shown") };
        let now = format!("time step {}, the last is {}{shown_steps}", self.step, shown.batch.steps - 1);
        area.draw_text(&now, &text(NORMAL, HPos::Left, VPos::Top), (16, 42))?;
        for ((heat, at), last) in [(inputs, false), (outputs, true)] {
            heat.draw(area, *at, last)?;
            let edge = (self.step + 1) as i64 * at.width as i64 / shown.batch.steps as i64;
            if (edge as i32) < at.width {
                let future = Rect { x: at.x + edge as i32, width: at.width - edge as i32, ..*at };
                image(area, future, |_, _| WHITE)?;
                area.draw(&PathElement::new([(future.x, at.y), (future.x, at.y + at.height - 1)], INK))?;
            }
        }
        self.draw_memory(area)?;
        for head in 0..shown.shape.heads() {
            self.draw_head(area, head)?;
        }
        let titles = text(NORMAL, HPos::Left, VPos::Bottom);
        area.draw_text("read", &titles, (LEFT, memory.y - 6))?;
        area.draw_text(
            "memory after the writes",
            &text(NORMAL, HPos::Center, VPos::Bottom),
            (memory.x + memory.width / 2, memory.y - 6),
        )?;
        area.draw_text("write", &titles, (memory.x + memory.width + 8 + POINTER, memory.y - 6))
    }
}

impl Still<'_> {
    fn draw_memory<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB> {
        let Stage { shown, window, memory: at, scale, .. } = self.stage;
        let MemoryShape { rows, width, .. } = shown.shape;
        image(area, *at, |x, y| {
            let column = x as usize * width / at.width as usize;
            scale.colour(self.memory.values[self.stage.row(y) * width + column])
        })?;
        frame(area, *at)?;
        let bar = Rect { x: self.stage.size.0 as i32 - 68, width: 10, ..*at };
        colour_bar(area, bar, *scale)?;
        let numbers = text(SMALL, HPos::Right, VPos::Center);
        let step = round_step(window.count, (at.height / 24) as usize);
        for row in (0..window.count).filter(|row| ((window.first + row) % rows).is_multiple_of(step)) {
            let middle = at.y + (2 * row + 1) as i32 * at.height / (2 * window.count as i32);
            area.draw(&PathElement::new([(LEFT - 6, middle), (LEFT - 2, middle)], INK))?;
            area.draw_text(&((window.first + row) % rows).to_string(), &numbers, (LEFT - 9, middle))?;
        }
        let name = format!("memory row ({})", window.said(rows));
        area.draw_text(&name, &upwards(SMALL), (LEFT - 46, at.y + at.height / 2))
    }

    /// The weighting as a strip, and a pointer at its largest weight on the side of the memory.
    fn draw_head<DB: DrawingBackend>(&self, area: &Area<DB>, head: usize) -> Drawn<DB> {
        let MemoryShape { rows, read_heads, .. } = self.stage.shown.shape;
        let heads = self.stage.shown.shape.heads();
        let weighting = &self.stage.shown.trace.weightings[(self.step * heads + head) * rows..][..rows];
        let at = self.stage.strip(head);
        image(area, at, |_, y| Scale::From0(1.0).colour(weighting[self.stage.row(y)]))?;
        frame(area, at)?;
        let window = self.stage.window;
        let weight = |row: &usize| weighting[(window.first + row) % rows];
        let peak = (0..window.count).max_by(|a, b| weight(a).total_cmp(&weight(b))).unwrap_or(0);
        let middle = at.y + (2 * peak + 1) as i32 * at.height / (2 * window.count as i32);
        // towards the memory
        let (base, tip) = if head < read_heads {
            (at.x + STRIP + POINTER - 2, at.x + STRIP + 3)
        } else {
            (at.x - POINTER + 2, at.x - 3)
        };
        area.draw(&Polygon::new([(tip, middle), (base, middle - 6), (base, middle + 6)], INK.filled()))?;
        if heads > 2 {
            let number = if head < read_heads { head } else { head - read_heads } + 1;
            let style = text(SMALL, HPos::Center, VPos::Top);
            area.draw_text(&number.to_string(), &style, (at.x + STRIP / 2, at.y + at.height + 4))?;
        }
        Ok(())
    }
}
