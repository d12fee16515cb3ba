//! Signals that ask a run to stop.

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Gives the number of the first SIGINT, SIGTERM or SIGHUP once it has come; a second one ends the process at once.
pub fn stop_signal() -> Result<impl Fn() -> Option<i32> + Sync> {
    let stop = Arc::new(AtomicUsize::new(0));
    let armed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !ignored(signal)) {
        flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?; // before arming: the first passes
        flag::register(signal, armed.clone())?;
        flag::register_usize(signal, stop.clone(), signal as usize)?;
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
