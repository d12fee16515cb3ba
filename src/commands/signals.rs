//! Signals that ask a run to stop.

use crate::distributed::{STOPS, launched};
use anyhow::Result;
use signal_hook::low_level;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Said when the first signal comes, if that `is_answered`, since an update or an evaluation may take a while.
pub const STOPPING: &str = "\nstopping, and saving first; the same again ends it at once, unsaved\n";

/// Whether a signal is answered: on a terminal, by a process that nothing launched, where a second one is no
/// repetition.
pub fn is_answered() -> bool {
    !launched() && std::io::stderr().is_terminal()
}

/// Gives the number of the first of `STOPS` once it has come; `answers`: whether it is answered here. A second one that
/// comes later than `grace` after it ends the process at once; until then it is a repetition.
pub fn stop_signal(grace: Duration, answers: bool) -> Result<impl Fn() -> Option<i32> + Sync> {
    let stop = Arc::new(AtomicUsize::new(0));
    let first = Arc::new(AtomicU64::new(0)); // microseconds after `began`
    let (began, grace) = (Instant::now(), grace.as_micros() as u64);
    let told = if answers && is_answered() { STOPPING } else { "" };
    for signal in STOPS.into_iter().filter(|&signal| !ignored(signal)) {
        let (stop, first) = (stop.clone(), first.clone());
        let came = move || {
            let now = began.elapsed().as_micros() as u64 + 1;
            match first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    stop.store(signal as usize, Ordering::Relaxed);
                    // SAFETY: bytes of a constant.
                    unsafe { libc::write(libc::STDERR_FILENO, told.as_ptr().cast(), told.len()) };
                }
                Err(then) if now.saturating_sub(then) >= grace => low_level::exit(128 + signal),
                Err(_) => {}
            }
        };
        // SAFETY: a handler may use atomics, the monotonic clock, `write` and `_exit`, and this one does nothing else.
        unsafe { low_level::register(signal, came) }?;
    }
    Ok(move || Some(stop.load(Ordering::Relaxed) as i32).filter(|&signal| signal != 0))
}

/// Whether this process was started with the signal ignored, as by nohup; then it stays so.
fn ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present action only; the struct is plain data, zeros are a valid value.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
