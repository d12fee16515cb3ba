//! Where tensors live: parses `--device` and finds out what this machine has.

mod failure;

pub use failure::{caught, guarded};

use anyhow::{Result, bail};
use std::ffi::{CStr, c_void};
use tch::{Cuda, Device};

/// The device a flag names, and for `auto` a word on why: a card if every process of this machine has one. `own`: the
/// number of this process among the `processes`, if it is known, and of its card where the flag names none.
pub fn choose(flag: &str, own: Option<usize>, processes: usize) -> Result<(Device, &'static str)> {
    match flag {
        "cpu" => Ok((Device::Cpu, "as asked")),
        "auto" => Ok(match (cuda_devices(), own) {
            (0, _) if !opened(c"libcuda.so.1") => (Device::Cpu, "there is no NVIDIA driver"),
            (0, _) => (Device::Cpu, why_no_cuda()),
            (_, None) => (Device::Cpu, "LOCAL_RANK does not say which card"),
            (count, Some(own)) if count < processes.max(own + 1) => {
                (Device::Cpu, "there are fewer cards than processes")
            }
            (_, Some(own)) => (Device::Cuda(own), "a card was found"),
        }),
        "cuda" => match own {
            Some(own) => cuda(own),
            None => bail!(
                "`--device cuda` is the card LOCAL_RANK, which is not set\n\
                 hint: set it, as torchrun does, or name a card: `--device cuda:I`"
            ),
        },
        _ => match flag.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => cuda(index),
            None => bail!("`--device {flag}` is not a device\nhint: auto, cpu, cuda, or cuda:I with I = 0, 1, ..."),
        },
    }
}

fn cuda(index: usize) -> Result<(Device, &'static str)> {
    match cuda_devices() {
        0 => bail!("no CUDA device: {}\nhint: `--device cpu`, or `--device auto`", why_no_cuda()),
        count if index >= count => {
            bail!(
                "no device cuda:{index}: this machine has {count}\n\
                 hint: indices go from 0 to {}; where a scheduler gives each process a card, it is `--device cuda:0`",
                count - 1
            )
        }
        _ => Ok((Device::Cuda(index), "as asked")),
    }
}

/// The number of CUDA devices libtorch can use; opens its CUDA library where there is a driver.
fn cuda_devices() -> usize {
    if opened(c"libcuda.so.1") && opened(c"libtorch_cuda.so") { Cuda::device_count().max(0) as usize } else { 0 }
}

fn why_no_cuda() -> &'static str {
    if !opened(c"libcuda.so.1") {
        "the NVIDIA driver (libcuda.so.1) is not installed"
    } else if !opened(c"libtorch_cuda.so") {
        "this libtorch is for CPU only; remove .venv and .libtorch, then `make setup` on a machine with a driver fetches the full one"
    } else {
        "the driver lists no device, or is older than CUDA 13 needs (580)"
    }
}

fn opened(library: &CStr) -> bool {
    open_library(library).is_some()
}

/// A library of CUDA's by its name or path, for the whole process; none where it cannot be opened.
pub fn open_library(library: &CStr) -> Option<*mut c_void> {
    // SAFETY: a valid C string; loading libraries of libtorch and CUDA runs no code of a stranger.
    let opened = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    (!opened.is_null()).then_some(opened)
}

/// What devices have that compute alike.
pub fn kind(device: Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}

/// The name users give a device.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_card_is_taken_for_a_process_that_does_not_know_its_number_on_this_machine() {
        let message = choose("cuda", None, 2).unwrap_err().to_string();
        assert!(message.starts_with("`--device cuda` is the card LOCAL_RANK, which is not set\nhint: "), "{message}");
        assert_eq!(choose("auto", None, 2).unwrap().0, Device::Cpu);
    }
}
