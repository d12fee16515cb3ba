//! What libtorch can do and torch-sys does not bind: a C++ file and a Rust file a subject. build.rs compiles the C++.

mod c10d;
mod nccl;
mod script;

pub use c10d::{Interfaces, ProcessGroup, Store};
pub use nccl::Nccl;
pub use script::Script;

use anyhow::{Result, anyhow};
use std::ffi::{CStr, CString, c_char, c_void};

extern "C" fn take(to: *mut c_void, data: *const u8, size: usize) {
    // SAFETY: `to` is the vector of whoever called, and C++ hands over `size` bytes that live during the call.
    unsafe { (*to.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(data, size)) }
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| anyhow!("a text with a NUL character"))
}

/// Takes a message over from C++.
fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message is a C string from strdup, and it is freed here once.
    let error = unsafe {
        let error = anyhow!("{}", CStr::from_ptr(message).to_string_lossy());
        libc::free(message.cast());
        error
    };
    Err(error)
}
