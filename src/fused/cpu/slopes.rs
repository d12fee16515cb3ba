//! Finite differences in f64, for the tests of the backward functions.

/// Any values from -1 to 1, none of them alike; others for another seed.
pub fn values(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| (1.7 * i as f64 + 0.9 * seed as f64).sin()).collect()
}

/// Asserts that `gradient` is that of d_out . forward(x) by x. A failure names the parts of x, given by name and size,
/// where it is not.
#[track_caller]
pub fn assert_slopes(
    parts: &[(&str, usize)],
    x: &[f64],
    d_out: &[f64],
    forward: impl Fn(&[f64]) -> Vec<f64>,
    gradient: &[f64],
) {
    const STEP: f64 = 1e-5; // at which the error of the difference, of order STEP^2, is about that of rounding
    const TOLERANCE: f64 = 1e-7;
    let loss = |x: &[f64]| forward(x).iter().zip(d_out).map(|(out, d)| out * d).sum::<f64>();
    let slope = |i: usize| {
        let at = |step: f64| {
            let mut x = x.to_vec();
            x[i] += step;
            loss(&x)
        };
        (at(STEP) - at(-STEP)) / (2.0 * STEP)
    };
    assert_eq!((x.len(), parts.iter().map(|part| part.1).sum()), (gradient.len(), x.len()));
    let mut wrong = vec![];
    let mut first = 0;
    for &(part, size) in parts {
        let apart = (first..first + size).map(|i| (gradient[i] - slope(i)).abs()).fold(0.0, f64::max);
        if apart > TOLERANCE {
            wrong.push(format!("{part} by {apart:.1e}"));
        }
        first += size;
    }
    assert!(wrong.is_empty(), "not the slope: {}", wrong.join(", "));
}
