//! The layout of what a head emits.

use std::ops::Range;

/// Where a head's values lie in what it emits: key (M), strength, gate, shift (S), sharpening; a write head's erase
/// (M), add (M).
#[derive(Clone, Copy)]
pub struct Emitted {
    m: usize,
    s: usize,
}

impl Emitted {
    pub fn new(m: usize, s: usize) -> Emitted {
        Emitted { m, s }
    }
    pub fn key(self) -> Range<usize> {
        0..self.m
    }
    pub fn strength(self) -> usize {
        self.m
    }
    pub fn gate(self) -> usize {
        self.m + 1
    }
    pub fn shift(self) -> Range<usize> {
        self.m + 2..self.m + 2 + self.s
    }
    pub fn sharpening(self) -> usize {
        self.m + 2 + self.s
    }
    pub fn erase(self) -> Range<usize> {
        self.m + 3 + self.s..2 * self.m + 3 + self.s
    }
    pub fn add(self) -> Range<usize> {
        2 * self.m + 3 + self.s..3 * self.m + 3 + self.s
    }
    /// What a trace shows: strength, gate and sharpening.
    pub fn scalars(self) -> [usize; 3] {
        [self.strength(), self.gate(), self.sharpening()]
    }
    /// How many values a read head emits.
    pub fn reading(self) -> usize {
        self.erase().start
    }
    /// How many values a write head emits.
    pub fn writing(self) -> usize {
        self.add().end
    }
}
