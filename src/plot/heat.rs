//! A panel of values over time as an image: a column a step, a row a channel, with ticks and a colour bar.

use super::canvas::{Area, Drawn, NORMAL, SMALL, text, upwards};
use super::colour::{INK, Scale};
use super::numbers::short;
use plotters::backend::DrawingBackend;
use plotters::element::{BitMapElement, PathElement, Rectangle};
use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, VPos};

/// Pixels beside a panel for its ticks and its colour bar, and above it for its title.
pub const LEFT: i32 = 66;
pub const RIGHT: i32 = 66;
pub const TITLE: i32 = 26;
/// Pixels below the last panel of a column, for the ticks of the time axis and its name.
pub const TIME_AXIS: i32 = 48;

/// Where a panel's values are drawn, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    pub x: i32,
    pub y: i32,
    pub width: i32,
    pub height: i32,
}

/// Values over time.
pub struct Heat {
    pub title: String,
    /// What a row is.
    pub row: &'static str,
    pub steps: usize,
    pub values: Vec<f32>, // (steps, rows), NaN where there is nothing
    pub scale: Scale,
    /// The number of the row at the top, and after which one row 0 follows.
    pub first_row: usize,
    pub all_rows: usize,
}

impl Heat {
    pub fn new(title: impl Into<String>, row: &'static str, steps: usize, values: Vec<f32>) -> Heat {
        let (scale, all_rows) = (Scale::of(&values), values.len() / steps);
        Heat { title: title.into(), row, steps, values, scale, first_row: 0, all_rows }
    }

    /// Of the inputs of a sequence. Bits stay bright beside a few greater values, such as the count of repeat copy.
    pub fn inputs(title: &str, steps: usize, values: &[f32]) -> Heat {
        let heat = Heat::new(title, "channel", steps, values.to_vec());
        let ones = values.iter().filter(|value| **value == 1.0).count();
        let others = values.iter().filter(|value| ![0.0, 1.0].contains(*value)).count();
        match heat.scale {
            Scale::From0(most) if most > 1.0 && ones > others => {
                Heat { title: format!("{title} (more than 1 as 1)"), scale: Scale::From0(1.0), ..heat }
            }
            _ => heat,
        }
    }

    pub fn rows(&self) -> usize {
        self.values.len() / self.steps
    }

    /// Draws the panel; `last` says whether the time axis gets its numbers here.
    pub fn draw<DB: DrawingBackend>(&self, area: &Area<DB>, at: Rect, last: bool) -> Drawn<DB> {
        let Rect { x, y, width, height } = at;
        area.draw_text(&self.title, &text(NORMAL, HPos::Left, VPos::Bottom), (x, y - 4))?;
        image(area, at, |column, row| self.scale.colour(self.strongest(column, row, at)))?;
        frame(area, at)?;
        time_ticks(area, at, self.steps, last)?;
        let rows = self.rows();
        area.draw_text(self.row, &upwards(SMALL), (x - 44, y + height / 2))?;
        let labels = (height / 24).max(1) as usize;
        for row in (0..rows).filter(|row| self.number(*row).is_multiple_of(round_step(rows, labels))) {
            let middle = y + ((2 * row + 1) as i32 * height) / (2 * rows as i32);
            area.draw(&PathElement::new([(x - 5, middle), (x - 1, middle)], INK))?;
            let style = text(SMALL, HPos::Right, VPos::Center);
            area.draw_text(&self.number(row).to_string(), &style, (x - 8, middle))?;
        }
        let bar = Rect { x: x + width + 10, width: 10, ..at };
        colour_bar(area, bar, self.scale)
    }

    fn number(&self, row: usize) -> usize {
        (self.first_row + row) % self.all_rows
    }

    /// The value farthest from 0 of those that fall on a pixel, so that no thin line is lost where steps or rows are
    /// narrower than a pixel.
    fn strongest(&self, column: i32, row: i32, at: Rect) -> f32 {
        let rows = self.rows();
        let covered = |pixel: i32, pixels: i32, cells| covered(pixel as usize, pixels as usize, cells);
        let (steps, rows_here) = (covered(column, at.width, self.steps), covered(row, at.height, rows));
        let values = steps.flat_map(|step| rows_here.clone().map(move |row| self.values[step * rows + row]));
        values.reduce(|a, b| if b.abs() > a.abs() || a.is_nan() { b } else { a }).unwrap_or(f32::NAN)
    }
}

/// The cells, of `cells` over `pixels`, that fall on a pixel: at least one.
pub fn covered(pixel: usize, pixels: usize, cells: usize) -> std::ops::Range<usize> {
    let at = |pixel| pixel * cells / pixels;
    at(pixel)..at(pixel + 1).max(at(pixel) + 1)
}

/// Fills a rectangle with the colours of (column, row).
pub fn image<DB: DrawingBackend>(area: &Area<DB>, at: Rect, colour: impl Fn(i32, i32) -> RGBColor) -> Drawn<DB> {
    let mut pixels = Vec::with_capacity(3 * (at.width * at.height) as usize);
    for row in 0..at.height {
        for column in 0..at.width {
            let RGBColor(red, green, blue) = colour(column, row);
            pixels.extend([red, green, blue]);
        }
    }
    let size = (at.width as u32, at.height as u32);
    match BitMapElement::with_owned_buffer((at.x, at.y), size, pixels) {
        Some(image) => area.draw(&image),
        None => Ok(()), // only for a buffer of the wrong length
    }
}

/// A line around a rectangle, just outside of it.
pub fn frame<DB: DrawingBackend>(area: &Area<DB>, at: Rect) -> Drawn<DB> {
    area.draw(&Rectangle::new([(at.x - 1, at.y - 1), (at.x + at.width, at.y + at.height)], INK))
}

pub fn time_ticks<DB: DrawingBackend>(area: &Area<DB>, at: Rect, steps: usize, last: bool) -> Drawn<DB> {
    let bottom = at.y + at.height;
    for step in (0..steps).step_by(round_step(steps, (at.width / 60) as usize)) {
        let middle = at.x + ((2 * step + 1) as i64 * at.width as i64 / (2 * steps as i64)) as i32;
        area.draw(&PathElement::new([(middle, bottom + 1), (middle, bottom + 5)], INK))?;
        if last {
            area.draw_text(&step.to_string(), &text(SMALL, HPos::Center, VPos::Top), (middle, bottom + 8))?;
        }
    }
    if last {
        let style = text(SMALL, HPos::Center, VPos::Top);
        area.draw_text("time step", &style, (at.x + at.width / 2, bottom + 28))?;
    }
    Ok(())
}

pub fn colour_bar<DB: DrawingBackend>(area: &Area<DB>, at: Rect, scale: Scale) -> Drawn<DB> {
    let (low, high) = scale.ends();
    let steps = (at.height - 1).max(1) as f32;
    image(area, at, |_, row| scale.colour(high - (high - low) * row as f32 / steps))?;
    frame(area, at)?;
    let right = at.x + at.width + 5;
    area.draw_text(&short(high), &text(SMALL, HPos::Left, VPos::Top), (right, at.y - 2))?;
    area.draw_text(&short(low), &text(SMALL, HPos::Left, VPos::Bottom), (right, at.y + at.height + 2))
}

/// A step of 1, 2 or 5 times a power of ten that makes at most `labels` labels of `count` values.
pub fn round_step(count: usize, labels: usize) -> usize {
    let least = count.div_ceil(labels.max(1)).max(1);
    let steps = (0..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10usize.pow(power)));
    steps.into_iter().find(|&step| step >= least).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_bright_step_stays_visible_where_many_steps_share_a_pixel() {
        let mut values = vec![0.0; 1000];
        values[777] = 1.0;
        let heat = Heat::new("", "", 1000, values);
        let at = Rect { x: 0, y: 0, width: 10, height: 3 };
        let row: Vec<f32> = (0..10).map(|column| heat.strongest(column, 1, at)).collect();
        assert_eq!(row, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_count_among_the_inputs_does_not_dim_the_bits_and_real_values_keep_their_scale() {
        let bits = Heat::inputs("inputs", 3, &[1.0, 0.0, 1.0, 0.0, 1.0, 5.0]);
        assert_eq!((bits.scale, bits.title.as_str()), (Scale::From0(1.0), "inputs (more than 1 as 1)"));
        let values = Heat::inputs("inputs", 3, &[1.0, 0.0, 2.5]);
        assert_eq!((values.scale, values.title.as_str()), (Scale::From0(2.5), "inputs"));
        assert_eq!(Heat::inputs("inputs", 1, &[1.0, 0.0]).title, "inputs");
    }

    #[test]
    fn every_step_is_as_wide_as_every_other_where_it_has_whole_pixels() {
        let heat = Heat::new("", "", 3, vec![0.0, 0.5, 1.0]);
        let at = Rect { x: 0, y: 0, width: 6, height: 1 };
        let row: Vec<f32> = (0..6).map(|column| heat.strongest(column, 0, at)).collect();
        assert_eq!(row, [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!([round_step(8, 3), round_step(128, 5), round_step(242, 8), round_step(3, 0)], [5, 50, 50, 5]);
    }
}
