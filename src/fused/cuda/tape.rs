//! One vector on the device that holds all that a launch leaves and needs, cut into fields.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// A matrix within a tape.
#[derive(Clone, Copy, Default)]
pub struct Field {
    at: i64,
    rows: i64,
    stride: i64,
}

/// Hands out the places of fields, each on a boundary of 16 bytes or more.
#[derive(Default)]
pub struct Room {
    next: i64,
}

impl Room {
    pub fn field(&mut self, rows: usize, stride: usize) -> Field {
        let field = Field { at: self.next, rows: rows as i64, stride: stride as i64 };
        self.next += (field.rows * field.stride + 3) / 4 * 4;
        field
    }
}

/// The storage; it grows to what the largest batch has needed.
pub struct Tape {
    values: Tensor,
}

impl Tape {
    pub fn new(options: (Kind, Device)) -> Tape {
        Tape { values: Tensor::empty([0], options) }
    }

    pub fn reserve(&mut self, room: &Room) -> Result<()> {
        let options = (self.values.kind(), self.values.device());
        if (self.values.numel() as i64) < room.next {
            self.values = Tensor::empty([0], options); // the old one first makes place
            self.values = Tensor::f_empty([room.next], options)?;
        }
        Ok(())
    }

    /// (rows, stride)
    pub fn view(&self, field: Field) -> Tensor {
        self.values.narrow(0, field.at, field.rows * field.stride).view([field.rows, field.stride])
    }

    pub fn address(&self, field: Field) -> u64 {
        self.values.data_ptr() as u64 + field.at as u64 * self.values.kind().elt_size_in_bytes() as u64
    }
}
