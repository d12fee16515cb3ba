//! The names of the lines of a chart, above it: in a box over the lines they would cover some.

use super::canvas::{Area, Drawn, NORMAL, text};
use super::colour::series;
use plotters::backend::DrawingBackend;
use plotters::element::PathElement;
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

/// Pixels of a name.
const LINE: i32 = 24;

/// The height of so many names, one below the other.
pub fn height(names: usize) -> i32 {
    LINE * names as i32
}

/// Draws names in the colours of `series`, from a point to the right and down.
pub fn legend<'a, DB: DrawingBackend>(
    area: &Area<DB>,
    names: impl Iterator<Item = &'a str>,
    (x, y): (i32, i32),
) -> Drawn<DB> {
    for (index, name) in names.enumerate() {
        let middle = y + LINE * index as i32 + LINE / 2;
        // a centred text sits a little high
        let line = [(x, middle - 3), (x + 24, middle - 3)];
        area.draw(&PathElement::new(line, series(index).stroke_width(3)))?;
        area.draw_text(name, &text(NORMAL, HPos::Left, VPos::Center), (x + 34, middle))?;
    }
    Ok(())
}
