//! Checks of values of recipes and flags: the error names the field or flag, its value and what is allowed.

use anyhow::{Result, bail};

/// An error unless `low <= value <= high`.
pub fn in_range<T: PartialOrd + std::fmt::Display>(field: &str, value: T, low: T, high: T) -> Result<()> {
    if value >= low && value <= high {
        return Ok(());
    }
    bail!("`{field}` is {value}, allowed: {low} to {high}")
}

/// An error unless `0 < value <= high`.
pub fn above_zero(field: &str, value: f64, high: f64) -> Result<()> {
    if value > 0.0 && value <= high {
        return Ok(());
    }
    bail!("`{field}` is {value}, allowed: more than 0, up to {high}")
}

/// An error unless `0 <= value < 1`.
pub fn fraction(field: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    bail!("`{field}` is {value}, allowed: 0 up to, but less than, 1")
}
