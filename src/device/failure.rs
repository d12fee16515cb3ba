//! Failures of a device in words of ours: libtorch tells them in panics with C++ traces.

use anyhow::{Error, Result, anyhow, bail};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs what uses a device; if that runs out of memory or fails, the error says so in words of ours.
pub fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if failure(&info.to_string()).is_none() {
            default(info);
        }
    }));
    caught(run)
}

/// Failures of a device in words of ours, below a `guarded` that silences the trace.
fn caught<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
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

/// Runs, in a thread of its own below a `guarded`, what others beside it must survive: any other panic, which the hook
/// has told, is an error, too.
pub fn isolated<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| caught(run))).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        bail!("a bug in ntm: {message}")
    })
}

/// What libtorch or the driver says when a device fails, in words of ours; none if it is something else.
fn failure(message: &str) -> Option<String> {
    let line =
        |start: &str| message[message.find(start)?..].split(['\n', '"']).next().map(|line| line.trim_end_matches('.'));
    // what libtorch's allocator on a card says, that of the CPU on every architecture, CUDA, its libraries, and the
    // driver
    let full =
        ["CUDA out of memory", "you tried to allocate", "error: out of memory", "_ALLOC_FAILED", "OUT_OF_MEMORY"];
    if full.iter().any(|said| message.contains(said)) {
        let hint = "hint: a smaller `training.batch_size`, shorter sequences, or another device";
        return Some(format!("out of memory on the device\n{hint}"));
    }
    let said = line("CUDA error")?;
    Some(format!("the device failed: {said}\nhint: the same with `--device cpu` tells whether it is the card"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_device_without_memory_is_an_error_of_two_lines() {
        for said in [
            "Torch(\"CUDA out of memory. Tried to allocate 20.00 GiB\nException raised from malloc (C++ trace)\")",
            "Torch(\"CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported\")",
            "Torch(\"CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\")",
        ] {
            let panics = guarded::<()>(|| panic!("called `Result::unwrap()` on an `Err` value: {said}"));
            for result in [panics, guarded(|| bail!("{said}"))] {
                let message = format!("{:#}", result.expect_err("it failed"));
                assert_eq!(message.lines().count(), 2, "{message}");
                assert!(message.starts_with("out of memory on the device\nhint: "), "{message}");
            }
        }
    }

    #[test]
    fn a_panic_of_our_own_is_an_error_where_others_must_survive_it() {
        let panics: [fn() -> Result<()>; 2] = [|| panic!("{} of 3", 4), || panic!("4 of 3")];
        for panics in panics {
            assert_eq!(isolated(panics).expect_err("it panicked").to_string(), "a bug in ntm: 4 of 3");
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
