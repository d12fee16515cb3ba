//! Colours: of values, chosen so that equal steps of a value look equal, and of lines, apart for colour-blind eyes too.

use plotters::style::RGBColor;
use plotters::style::colors::colormaps::{ColorMap, DerivedColorMap, ViridisRGB};

pub const INK: RGBColor = RGBColor(34, 34, 34);
/// Where there is no value.
pub const NOTHING: RGBColor = RGBColor(224, 224, 224);
pub const FAINT: RGBColor = RGBColor(226, 226, 226);

/// The colours of Okabe and Ito, without the yellow that white swallows; then half as bright, with a grey.
const SERIES: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    INK,
];

pub fn series(index: usize) -> RGBColor {
    let RGBColor(red, green, blue) = SERIES[index % SERIES.len()];
    match (index / SERIES.len() % 2, index % SERIES.len()) {
        (0, _) => RGBColor(red, green, blue),
        (_, 6) => RGBColor(150, 150, 150),
        _ => RGBColor(red / 2, green / 2, blue / 2),
    }
}

/// Which values the colours of a panel stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// 0 to this: dark to bright.
    From0(f32),
    /// Minus this to plus this: blue, white at 0, red.
    Around0(f32),
}

impl Scale {
    /// The scale that these values fit, at least 0 to 1 if none is negative. NaN is no value.
    pub fn of(values: &[f32]) -> Scale {
        let most = values.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
        let signed = values.iter().any(|&value| value < 0.0);
        if signed { Scale::Around0(most) } else { Scale::From0(most.max(1.0)) }
    }

    /// The least and the greatest value.
    pub fn ends(self) -> (f32, f32) {
        match self {
            Scale::From0(most) => (0.0, most),
            Scale::Around0(most) => (-most, most),
        }
    }

    pub fn colour(self, value: f32) -> RGBColor {
        if value.is_nan() {
            return NOTHING;
        }
        let (low, high) = self.ends();
        let [value, low, high] = [value, low, high].map(f64::from); // whose difference may be beyond f32
        let place = ((value - low) / (high - low)).clamp(0.0, 1.0) as f32;
        match self {
            Scale::From0(_) => ViridisRGB.get_color(place),
            Scale::Around0(_) => {
                let (blue, white, red) = (RGBColor(33, 102, 172), RGBColor(255, 255, 255), RGBColor(178, 24, 43));
                DerivedColorMap::new(&[blue, white, red]).get_color(place)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_has_its_zero_at_the_dark_end_or_at_white() {
        assert_eq!(Scale::of(&[0.0, 0.4, f32::NAN]), Scale::From0(1.0));
        assert_eq!(Scale::of(&[0.0, 3.0]), Scale::From0(3.0));
        assert_eq!(Scale::of(&[-2.0, 1.0]), Scale::Around0(2.0));
        let brightness = |RGBColor(red, green, blue): RGBColor| red as u32 + green as u32 + blue as u32;
        let colours: Vec<u32> = (0..=10).map(|i| brightness(Scale::From0(1.0).colour(i as f32 / 10.0))).collect();
        assert!(colours[0] < colours[5] && colours[5] < colours[10], "{colours:?}");
        assert_eq!(Scale::Around0(2.0).colour(0.0), RGBColor(255, 255, 255));
        assert_eq!(Scale::From0(1.0).colour(f32::NAN), NOTHING);
        assert_eq!(Scale::Around0(f32::MAX).colour(f32::MAX), RGBColor(178, 24, 43));
    }
}
