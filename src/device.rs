//! Where tensors live: the device that is asked for, and what this machine has.

mod failure;

pub use failure::{guarded, isolated};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, c_void};
use std::str::FromStr;
use tch::{Cuda, Device};

/// What `--device` can ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DeviceChoice {
    Auto,
    Cpu,
    /// The card of this process.
    Cuda,
    Card(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        let card = |number: &str| number.parse::<u16>().ok();
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda),
            _ => match text.strip_prefix("cuda:").and_then(card) {
                Some(index) => Ok(DeviceChoice::Card(index.into())),
                None => Err("allowed: auto, cpu, cuda, cuda:0, cuda:1, ...".to_string()),
            },
        }
    }
}

/// What devices have that compute alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    #[default]
    Cpu,
    Cuda,
}

impl DeviceKind {
    pub fn of(device: Device) -> DeviceKind {
        if device.is_cuda() { DeviceKind::Cuda } else { DeviceKind::Cpu }
    }
}

/// The device that is asked for, with the reason: for `auto` a card if every process of this machine has one. `own`: the
/// number of this process among the `processes`, if it is known, and of its card where none is named.
pub fn choose(choice: DeviceChoice, own: Option<usize>, processes: usize) -> Result<(Device, &'static str)> {
    match choice {
        DeviceChoice::Cpu => Ok((Device::Cpu, "as asked")),
        DeviceChoice::Auto => Ok(match (cuda_devices(), own) {
            (0, _) if !opened(c"libcuda.so.1") => (Device::Cpu, "there is no NVIDIA driver"),
            (0, _) => (Device::Cpu, why_no_cuda()),
            (_, None) => (Device::Cpu, "LOCAL_RANK does not say which card"),
            (count, Some(own)) if count < processes.max(own + 1) => {
                (Device::Cpu, "there are fewer cards than processes")
            }
            (_, Some(own)) => (Device::Cuda(own), "a card was found"),
        }),
        DeviceChoice::Cuda => match own {
            Some(own) => cuda(own),
            None => bail!(
                "`--device cuda` is the card LOCAL_RANK, which is not set\n\
                 hint: set it, as torchrun does, or name a card: `--device cuda:I`"
            ),
        },
        DeviceChoice::Card(index) => cuda(index),
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
        let message = choose(DeviceChoice::Cuda, None, 2).unwrap_err().to_string();
        assert!(message.starts_with("`--device cuda` is the card LOCAL_RANK, which is not set\nhint: "), "{message}");
        assert_eq!(choose(DeviceChoice::Auto, None, 2).unwrap().0, Device::Cpu);
    }
}
