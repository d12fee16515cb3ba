//! Frames of pixels as a GIF: one palette for all of them, and of each frame only what changed.

use super::colour::{FAINT, NOTHING, Scale};
use anyhow::Result;
use gif::{DisposalMethod, Encoder, Frame, Repeat};
use plotters::style::RGBColor;
use std::borrow::Cow;
use std::collections::HashMap;

/// The place in the palette that leaves a pixel as it was.
const UNCHANGED: u8 = 255;

pub struct Writer {
    encoder: Encoder<Vec<u8>>,
    size: (u16, u16),
    palette: Vec<RGBColor>,
    /// The nearest colour of the palette to each colour seen so far.
    nearest: HashMap<[u8; 3], u8>,
    before: Vec<u8>,
}

impl Writer {
    /// An animation that begins again when it ends.
    pub fn new(size: (u16, u16)) -> Result<Writer> {
        let palette = palette();
        let bytes: Vec<u8> = palette.iter().flat_map(|RGBColor(red, green, blue)| [*red, *green, *blue]).collect();
        let mut encoder = Encoder::new(vec![], size.0, size.1, &bytes)?;
        encoder.set_repeat(Repeat::Infinite)?;
        Ok(Writer { encoder, size, palette, nearest: HashMap::new(), before: vec![] })
    }

    /// Adds a frame (height, width, red green blue) that is shown for some hundredths of a second.
    pub fn add(&mut self, pixels: &[u8], hundredths: u16) -> Result<()> {
        let now: Vec<u8> = pixels.chunks_exact(3).map(|pixel| self.index([pixel[0], pixel[1], pixel[2]])).collect();
        let changed = |(i, &index): (usize, &u8)| if self.before.get(i) == Some(&index) { UNCHANGED } else { index };
        let buffer: Vec<u8> = now.iter().enumerate().map(changed).collect();
        self.encoder.write_frame(&Frame {
            delay: hundredths,
            dispose: DisposalMethod::Keep,
            transparent: Some(UNCHANGED),
            width: self.size.0,
            height: self.size.1,
            buffer: Cow::Owned(buffer),
            ..Frame::default()
        })?;
        self.before = now;
        Ok(())
    }

    /// The bytes of the file.
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(self.encoder.into_inner()?)
    }

    fn index(&mut self, pixel: [u8; 3]) -> u8 {
        let palette = &self.palette;
        *self.nearest.entry(pixel).or_insert_with(|| {
            let distance = |colour: &RGBColor| -> i32 {
                let pairs = [colour.0, colour.1, colour.2].into_iter().zip(pixel);
                pairs.map(|(a, b)| (a as i32 - b as i32).pow(2)).sum()
            };
            let candidates = palette.iter().take(UNCHANGED as usize).enumerate();
            candidates.min_by_key(|(_, colour)| distance(colour)).map_or(0, |(index, _)| index as u8)
        })
    }
}

/// Colours of values, greys for text, and a last one for `UNCHANGED`.
fn palette() -> Vec<RGBColor> {
    let shade = |i: usize, of: usize| i as f32 / (of - 1) as f32;
    let from_0 = (0..100).map(|i| Scale::From0(1.0).colour(shade(i, 100)));
    let around_0 = (0..101).map(|i| Scale::Around0(1.0).colour(2.0 * shade(i, 101) - 1.0));
    let greys = (0..52).map(|i| (255.0 * shade(i, 52)) as u8).map(|grey| RGBColor(grey, grey, grey));
    let last = RGBColor(0, 0, 0);
    from_0.chain(around_0).chain(greys).chain([NOTHING, FAINT, last]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_palette_is_256_colours_with_white_and_both_grounds_among_them() {
        let palette = palette();
        assert_eq!(palette.len(), 256);
        for colour in [RGBColor(255, 255, 255), NOTHING, FAINT, Scale::From0(1.0).colour(1.0)] {
            assert!(palette[..255].contains(&colour), "{colour:?}");
        }
    }
}
