//! Where tensors live: parses `--device` and finds out what this machine has.

use anyhow::{Result, bail};
use tch::{Cuda, Device};

/// The device a flag names, and for `auto` a word on why.
pub fn choose(flag: &str) -> Result<(Device, &'static str)> {
    match flag {
        "cpu" => Ok((Device::Cpu, "as asked")),
        "auto" if cuda_devices() > 0 => Ok((Device::Cuda(0), "a CUDA device was found")),
        "auto" => Ok((Device::Cpu, "no CUDA device was found")),
        "cuda" => cuda(0),
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
            bail!("no device cuda:{index}: this machine has {count}\nhint: indices go from 0 to {}", count - 1)
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
        "the driver lists no device"
    }
}

fn opened(library: &std::ffi::CStr) -> bool {
    // SAFETY: a valid C string; loading libtorch's own libraries runs no code of a stranger.
    unsafe { !libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() }
}

/// The name users give a device.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_string(),
    }
}
