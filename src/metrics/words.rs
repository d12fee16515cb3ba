//! What people call figures, and what they count them in.

pub(super) enum Unit {
    /// Bits of a sequence.
    Bits,
    /// A count of something in a sequence.
    Count,
    Seconds,
    None,
}

/// What people call the figures and the other numbers of a report, and what they count them in.
pub(super) const WORDS: &[(&str, &str, Unit)] = &[
    ("loss_bits", "loss", Unit::Bits),
    ("optimum_bits", "optimum", Unit::Bits),
    ("excess_bits", "loss above the optimum", Unit::Bits),
    ("bit_errors", "wrong bits", Unit::Count),
    ("marker_errors", "wrong markers", Unit::Count),
    ("position_errors", "wrong bits by position", Unit::Count),
    ("exact", "exact", Unit::None),
    ("squared_error", "squared error", Unit::None),
    ("grad_norm", "gradient norm", Unit::None),
    ("learning_rate", "learning rate", Unit::None),
    ("sequences_per_second", "sequences per second", Unit::None),
    ("reach", "reach of the curriculum", Unit::None),
    ("seconds", "time", Unit::Seconds),
];

fn words(metric: &str) -> (&str, &'static Unit) {
    let known = WORDS.iter().find(|(key, ..)| *key == metric);
    known.map_or((metric, &Unit::None), |(_, name, unit)| (*name, unit))
}

/// A figure in words, with its value.
pub(super) fn said(metric: &str, value: f64) -> String {
    let (name, unit) = words(metric);
    match unit {
        Unit::Bits => format!("{name} {value:.3} bits"),
        Unit::Count => format!("{value:.2} {name}"),
        Unit::Seconds | Unit::None => format!("{name} {}", shown(metric, value)),
    }
}

/// The name of a metric in words.
pub fn name(metric: &str) -> &str {
    words(metric).0
}

/// With its unit, for a column of a table of means over sequences.
pub fn column(metric: &str) -> String {
    match words(metric) {
        (name, Unit::Bits) => format!("{name} (bits)"),
        (name, Unit::Seconds) => format!("{name} (s)"),
        (name, Unit::Count | Unit::None) => name.to_string(),
    }
}

/// With its unit in full, for an axis of a picture.
pub fn axis(metric: &str) -> String {
    match words(metric) {
        (name, Unit::Bits) => format!("{name} (bits per sequence)"),
        (name, Unit::Count) => format!("{name} (per sequence)"),
        _ => column(metric),
    }
}

/// A mean for a table: four digits after the point, and of squares, which may have any scale, three that count where
/// these would be zeros or too many.
pub fn shown(metric: &str, value: f64) -> String {
    let of_any_scale = metric == "squared_error" && value != 0.0 && !(5e-3..1e6).contains(&value);
    if of_any_scale { format!("{value:.2e}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Figure, Figures};

    #[test]
    fn a_metric_has_one_name_and_one_unit_everywhere() {
        let figures = Figures(vec![("loss_bits", Figure::Mean(0.5)), ("bit_errors", Figure::Mean(2.0))]);
        assert_eq!(figures.said(), "loss 0.500 bits, 2.00 wrong bits");
        assert_eq!(
            ["loss_bits", "bit_errors", "seconds", "new"].map(column),
            ["loss (bits)", "wrong bits", "time (s)", "new"]
        );
        assert_eq!(["loss_bits", "bit_errors"].map(axis), ["loss (bits per sequence)", "wrong bits (per sequence)"]);
    }
}
