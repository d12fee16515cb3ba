//! Elementary functions that vectorise: no branches, no tables, no library calls for f32 (but in `softplus`, which
//! works on single values).
//! Each is a few units in the last place from the true value over the range the machine needs.

use super::Arch;
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// f32, and f64 for the proof that the algebra is right.
pub trait Float:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + 'static
{
    const ZERO: Self;
    const ONE: Self;
    const LOWEST: Self;
    fn of(value: f64) -> Self;
    fn to_f32(self) -> f32;
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn sqrt(self) -> Self;
    fn exp<A: Arch>(self) -> Self;
    /// For normal positive numbers and NaN.
    fn ln<A: Arch>(self) -> Self;
    fn tanh<A: Arch>(self) -> Self;
    /// log(1 + exp(x))
    fn softplus(self) -> Self;

    #[inline(always)]
    fn sigmoid<A: Arch>(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp::<A>())
    }

    /// The larger one; `other` if one is NaN.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    /// The smaller one; `other` if one is NaN.
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        if self < other { self } else { other }
    }

    /// The columns of four rows.
    #[inline(always)]
    fn columns(rows: [[Self; 4]; 4]) -> [[Self; 4]; 4] {
        std::array::from_fn(|column| rows.map(|row| row[column]))
    }
}

impl Float for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const LOWEST: f64 = f64::MIN;
    fn of(value: f64) -> f64 {
        value
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn mul_add(self, b: f64, c: f64) -> f64 {
        f64::mul_add(self, b, c)
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn exp<A: Arch>(self) -> f64 {
        f64::exp(self)
    }
    fn ln<A: Arch>(self) -> f64 {
        f64::ln(self)
    }
    fn tanh<A: Arch>(self) -> f64 {
        f64::tanh(self)
    }
    fn softplus(self) -> f64 {
        if self.is_nan() { self } else { self.max(0.0) + (-self.abs()).exp().ln_1p() }
    }
}

impl Float for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const LOWEST: f32 = f32::MIN;

    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn mul_add(self, b: f32, c: f32) -> f32 {
        f32::mul_add(self, b, c)
    }

    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }

    /// In registers, as the compiler does not by itself.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn columns(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
        use std::arch::x86_64::{__m128, _mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
        // SAFETY: four f32 either way, and SSE is part of every x86-64.
        unsafe {
            let [a, b, c, d] = std::mem::transmute::<[[f32; 4]; 4], [__m128; 4]>(rows);
            let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d)); // columns 0, 1
            let (high_ab, high_cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d)); // 2, 3
            let columns = [
                _mm_movelh_ps(ab, cd),
                _mm_movehl_ps(cd, ab),
                _mm_movelh_ps(high_ab, high_cd),
                _mm_movehl_ps(high_cd, high_ab),
            ];
            std::mem::transmute::<[__m128; 4], [[f32; 4]; 4]>(columns)
        }
    }

    /// exp(x) = 2^n exp(r) with n = round(x / ln 2), |r| <= ln 2 / 2 and exp(r) by its series up to r^7 / 7!.
    /// Below -87 it stays at 1.6e-38, above 88 at 1.7e38.
    #[inline(always)]
    fn exp<A: Arch>(self) -> f32 {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number, in the low bits of the sum
        const LN2_HIGH: f32 = 0.693_359_4; // ln 2 in two parts, so that n ln 2 is exact enough; the first has 9 bits
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let x = Float::smaller(88.0, Float::larger(-87.0, self)); // in this order a NaN stays one
        let shifted = A::fma(x, std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = A::fma(n, -LN2_LOW, A::fma(n, -LN2_HIGH, x));
        let mut series = 1.0 / 5040.0;
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            series = A::fma(series, r, coefficient);
        }
        let power = (shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23;
        series * f32::from_bits(power)
    }

    /// ln(x) = e ln 2 + 2 atanh(s), x = 2^e m with m in [0.7, 1.4], s = (m - 1) / (m + 1), the series up to s^9 / 9.
    #[inline(always)]
    fn ln<A: Arch>(self) -> f32 {
        const HALF_SQRT: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();
        let offset = self.to_bits().wrapping_sub(HALF_SQRT);
        let e = ((offset as i32) >> 23) as f32;
        let m = f32::from_bits((offset & 0x007f_ffff) + HALF_SQRT);
        let s = (m - 1.0) / (m + 1.0);
        let square = s * s;
        let mut series = 2.0 / 9.0;
        for coefficient in [2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0] {
            series = A::fma(series, square, coefficient);
        }
        let value = A::fma(e, std::f32::consts::LN_2, s * series);
        if self.is_nan() { self } else { value }
    }

    /// 1 - 2 / (exp(2|x|) + 1) with the sign of x; below 0.5, where that cancels, the series of tanh up to x^13.
    #[inline(always)]
    fn tanh<A: Arch>(self) -> f32 {
        let x = self.abs();
        let far = 1.0 - 2.0 / (Float::exp::<A>(x + x) + 1.0);
        let square = x * x;
        let mut series: f32 = 21844.0 / 6_081_075.0;
        for coefficient in [-1382.0 / 155_925.0, 62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
            series = A::fma(series, square, coefficient);
        }
        let value = if x < 0.5 { x * series } else { far };
        value.copysign(self)
    }

    fn softplus(self) -> f32 {
        if self.is_nan() { self } else { self.max(0.0) + (-self.abs()).exp().ln_1p() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Fma, Plain};

    /// Asserts that the error relative to the true value is below 3e-7 at many points of a range.
    fn assert_exact(low: f64, high: f64, fast: fn(f32) -> f32, exact: fn(f64) -> f64) {
        for i in 0..=200_000 {
            let x = (low + (high - low) * i as f64 / 200_000.0) as f32;
            let (value, expected) = (fast(x) as f64, exact(x as f64));
            let error = (value - expected).abs() / expected.abs().max(1e-30);
            assert!(error < 3e-7, "at {x:e} {value:e} instead of {expected:e}, {error:e} away"); // not so for NaN
        }
    }

    #[test]
    fn exp_ln_and_tanh_are_within_a_few_units_in_the_last_place() {
        assert_exact(-87.0, 88.0, <f32 as Float>::exp::<Plain>, f64::exp);
        assert_exact(-87.0, 88.0, <f32 as Float>::exp::<Fma>, f64::exp);
        assert_exact(-9.0, 9.0, <f32 as Float>::tanh::<Plain>, f64::tanh);
        for (low, high) in [(1e-16, 1e-3), (1e-3, 0.7), (0.7, 1.4), (1.4, 1e6)] {
            assert_exact(low, high, <f32 as Float>::ln::<Plain>, f64::ln);
            assert_exact(low, high, <f32 as Float>::ln::<Fma>, f64::ln);
        }
        assert_exact(-80.0, 80.0, <f32 as Float>::sigmoid::<Plain>, |x| 1.0 / (1.0 + (-x).exp()));
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let nan = f32::NAN;
        for value in
            [Float::exp::<Plain>(nan), Float::ln::<Plain>(nan), Float::tanh::<Plain>(nan), nan.sigmoid::<Plain>()]
        {
            assert!(value.is_nan());
        }
        assert!(Float::softplus(nan).is_nan());
    }

    #[test]
    fn the_ends_of_the_ranges_are_finite_and_signs_are_kept() {
        for x in [-1e30_f32, 1e30, f32::MIN, f32::MAX] {
            assert!(Float::exp::<Plain>(x).is_finite() && Float::exp::<Plain>(x) > 0.0);
            assert_eq!(Float::tanh::<Plain>(x), x.signum());
            assert!((0.0..=1.0).contains(&x.sigmoid::<Plain>()));
        }
        assert_eq!(Float::tanh::<Plain>(0.0_f32), 0.0);
        assert_eq!(Float::ln::<Plain>(1.0_f32), 0.0);
        assert!((Float::ln::<Plain>(1e-16_f32) + 36.841_362).abs() < 1e-5);
    }
}
