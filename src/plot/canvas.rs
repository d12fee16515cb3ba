//! From a picture to a file: PNG or SVG by its extension, or pixels for an animation.

use super::colour::INK;
use crate::files::write_atomically;
use anyhow::{Result, anyhow, bail};
use image::{ColorType, ImageFormat};
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::PathElement;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, FontTransform, IntoFont, RGBColor, TextStyle, WHITE, register_font};
use std::io::Cursor;
use std::path::Path;
use std::sync::OnceLock;

pub type Area<DB> = DrawingArea<DB, Shift>;

/// How drawing on a backend ends.
pub type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

pub trait Picture {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);
    /// Draws on a white area of that size.
    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB>;
}

/// Writes a picture, over a file that is there already: pictures are cheap.
pub fn save(picture: &impl Picture, path: &Path) -> Result<()> {
    write_atomically(path, &encoded(picture, &extension(path))?)
}

/// The bytes of a picture's file: SVG by its extension, else PNG.
fn encoded(picture: &impl Picture, extension: &str) -> Result<Vec<u8>> {
    let (width, height) = picture.size();
    if extension == "svg" {
        let mut svg = String::new();
        paint(picture, SVGBackend::with_string(&mut svg, (width, height)))?;
        return Ok(svg.into_bytes());
    }
    let mut png = Cursor::new(vec![]);
    image::write_buffer_with_format(&mut png, &pixels(picture)?, width, height, ColorType::Rgb8, ImageFormat::Png)?;
    Ok(png.into_inner())
}

/// The pixels of a picture, (height, width, red green blue).
pub fn pixels(picture: &impl Picture) -> Result<Vec<u8>> {
    let (width, height) = picture.size();
    let mut pixels = vec![0; 3 * width as usize * height as usize];
    paint(picture, BitMapBackend::with_buffer(&mut pixels, (width, height)))?;
    Ok(pixels)
}

fn paint<DB: DrawingBackend>(picture: &impl Picture, backend: DB) -> Result<()> {
    load_fonts()?;
    let area = backend.into_drawing_area();
    let drawn = area.fill(&WHITE).and_then(|()| picture.draw(&area)).and_then(|()| area.present());
    drawn.map_err(|error| anyhow!("{error}"))
}

fn extension(path: &Path) -> String {
    path.extension().map_or(String::new(), |extension| extension.to_string_lossy().to_lowercase())
}

/// The font of the pictures, a file of our own, so that a picture looks the same on a machine without any.
fn load_fonts() -> Result<()> {
    static LOADED: OnceLock<bool> = OnceLock::new();
    let load = || register_font(FONT, FontStyle::Normal, include_bytes!("font/DejaVuSans-subset.ttf")).is_ok();
    if *LOADED.get_or_init(load) { Ok(()) } else { bail!("the font of the program cannot be read") }
}

/// The family, as an SVG names it too; its viewer then takes a font of its own.
pub const FONT: &str = "sans-serif";

/// Sizes of text in pixels.
pub const SMALL: i32 = 16;
pub const NORMAL: i32 = 18;
pub const LARGE: i32 = 26;

/// Text that stands with this part of it at the point where it is drawn.
pub fn text(size: i32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    coloured(size, horizontal, vertical, INK)
}

pub fn coloured(size: i32, horizontal: HPos, vertical: VPos, colour: RGBColor) -> TextStyle<'static> {
    let style = TextStyle::from((FONT, size).into_font()).pos(Pos::new(horizontal, vertical));
    TextStyle { color: colour.to_backend_color(), ..style }
}

/// A line through points, piece by piece: a thick one in one piece has spikes at sharp bends, and tapers where they are
/// rounded to pixels.
pub fn line_of(points: &[(f64, f64)], colour: RGBColor) -> impl Iterator<Item = PathElement<(f64, f64)>> {
    points.windows(2).map(move |ends| PathElement::new(ends.to_vec(), colour.stroke_width(2)))
}

/// Text that reads upwards, its middle at the point.
pub fn upwards(size: i32) -> TextStyle<'static> {
    let font = (FONT, size).into_font().transform(FontTransform::Rotate270);
    TextStyle::from(font).color(&INK).pos(Pos::new(HPos::Center, VPos::Bottom))
}
