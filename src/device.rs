//! Where tensors live: parses `--device` and finds out what this machine has.

use anyhow::{Error, Result, anyhow, bail};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tch::{Cuda, Device};

/// The device a flag names, and for `auto` a word on why: a card if every process of this machine has one. `own`: the number of
/// this process among the `processes`, if it is known, and of its card where the flag names none.
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

/// Runs what uses a device; if that runs out of memory or fails, in words of ours: libtorch tells it in panics with C++ traces.
pub fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if failure(&info.to_string()).is_none() {
            default(info);
        }
    }));
    caught(run)
}

/// Runs what uses a device in a thread of its own, below a `guarded` that silences the trace; failures in words of ours.
pub fn caught<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let told = |error: Error| match failure(&format!("{error:?}")) {
        Some(failure) => {
            let text = format!("{error:#}");
            let hints = text.lines().filter(|line| line.starts_with("hint:")); // where the last checkpoint is, for instance
            anyhow!([failure.as_str()].into_iter().chain(hints).collect::<Vec<_>>().join("\n"))
        }
        None => error,
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(told),
        Err(panic) => match panic.downcast_ref::<String>().and_then(|message| failure(message)) {
            Some(failure) => bail!(failure),
            None => resume_unwind(panic),
        },
    }
}

/// What libtorch or the driver says when a device fails, in words of ours; none if it is something else.
fn failure(message: &str) -> Option<String> {
    let line =
        |start: &str| message[message.find(start)?..].split(['\n', '"']).next().map(|line| line.trim_end_matches('.'));
    if message.contains("CUDA out of memory")
        || message.contains("can't allocate memory")
        || message.contains("OUT_OF_MEMORY")
    {
        let hint = "hint: a smaller `training.batch_size`, shorter sequences, or another device";
        return Some(format!("out of memory on the device\n{hint}"));
    }
    let said = line("CUDA error")?;
    Some(format!("the device failed: {said}\nhint: the same with `--device cpu` tells whether it is the card"))
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

    #[test]
    fn a_device_without_memory_is_an_error_of_two_lines_whether_libtorch_panics_or_returns_it() {
        let said =
            "Torch(\"CUDA out of memory. Tried to allocate 20.00 GiB\nException raised from malloc (C++ trace)\")";
        let panics = guarded::<()>(|| panic!("called `Result::unwrap()` on an `Err` value: {said}"));
        for result in [panics, guarded(|| bail!("{said}"))] {
            let message = format!("{:#}", result.expect_err("it failed"));
            assert_eq!(message.lines().count(), 2, "{message}");
            assert!(message.starts_with("out of memory on the device\nhint: "), "{message}");
        }
    }

    #[test]
    fn libtorchs_own_allocation_failure_is_told_the_same_way() {
        let huge = || guarded(|| Ok(tch::Tensor::zeros([1 << 50], (tch::Kind::Float, Device::Cpu))));
        assert!(format!("{:#}", huge().expect_err("4 PB")).starts_with("out of memory"));
    }

    #[test]
    fn a_failing_card_is_told_in_one_line_and_other_errors_pass_unchanged() {
        let failed =
            failure("Torch(\"CUDA error: an illegal memory access was encountered\nCUDA kernel errors might\")");
        assert!(
            failed
                .expect("a failure")
                .starts_with("the device failed: CUDA error: an illegal memory access was encountered\n")
        );
        assert_eq!(guarded::<()>(|| bail!("no such file")).expect_err("it failed").to_string(), "no such file");
    }
}
