//! The weights alone as an uncompressed .npz, for numpy.load: a zip of .npy files. `Tensor::write_npz` writes in place,
//! and says nothing where the end of its file is lost.

use crate::checkpoint::{Checkpoint, bytes};
use anyhow::Result;
use std::io::{Cursor, Write};
use zip::write::FileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

pub fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    // without the time of day, the same bytes every time
    let options =
        FileOptions::default().compression_method(CompressionMethod::Stored).last_modified_time(DateTime::default());
    for parameter in &checkpoint.recipe.layout().parameters {
        zip.start_file(format!("{}.npy", parameter.name), options)?;
        zip.write_all(&header(&parameter.shape))?;
        zip.write_all(bytes(&checkpoint.theta[parameter.range()]))?;
    }
    Ok(zip.finish()?.into_inner())
}

/// What a .npy of f32 begins with: magic, version 1.0, and the length of a dict that ends with a line and a multiple of
/// 64 bytes.
fn header(shape: &[usize]) -> Vec<u8> {
    let shape: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    let length = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let start = [b"\x93NUMPY\x01\x00", &(length as u16).to_le_bytes()[..]].concat();
    [start, format!("{dict:<0$}\n", length - 1).into_bytes()].concat()
}
