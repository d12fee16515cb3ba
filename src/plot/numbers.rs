//! Numbers in pictures, in few characters.

/// A number of an axis in few characters.
pub fn tidy(value: f64) -> String {
    let value = value + 0.0; // no -0
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 1e-3 => return format!("{value:.1e}").replace(".0e", "e").replace('-', "−"),
        value => (2.0 - value.log10().floor()).clamp(0.0, 5.0) as usize,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    text.replace('-', "−")
}

/// A number beside a colour bar or a line: two digits of it, or all before the point.
pub fn short(value: f32) -> String {
    let digits = if value == 0.0 { 0.0 } else { 1.0 - value.abs().log10().floor() };
    let scale = 10f64.powi(digits.max(0.0) as i32);
    tidy((value as f64 * scale).round() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_an_axis_are_short() {
        let numbers = [0.0, 1.0, 12.5, 1200.0, 0.25, -3.0, 3e-4, 2.5e-4, -1e-5].map(tidy);
        assert_eq!(numbers, ["0", "1", "12.5", "1200", "0.25", "−3", "3e−4", "2.5e−4", "−1e−5"]);
    }

    #[test]
    fn numbers_of_a_bar_have_two_digits_and_no_sign_of_zero() {
        let numbers = [1.0, -1.83, 12.4, 1234.0, 0.25, -0.0312, 9.99, 4.2e-5, -0.0].map(short);
        assert_eq!(numbers, ["1", "−1.8", "12", "1234", "0.25", "−0.031", "10", "4.2e−5", "0"]);
    }
}
