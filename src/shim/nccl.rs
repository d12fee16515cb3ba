//! NCCL's process group, from a library of its own that the binary contains where it was built with a libtorch for
//! CUDA.

use super::{ProcessGroup, Store, check, text};
use anyhow::{Context, Result, bail};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::mem::transmute;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::null_mut;

include!(concat!(env!("OUT_DIR"), "/nccl.rs")); // LIBRARY

/// `ntm_group_nccl` of nccl.cpp: store, prefix, rank, size, milliseconds, a place for the group.
type Make = unsafe extern "C" fn(*mut c_void, *const c_char, c_int, c_int, u64, *mut *mut c_void) -> *mut c_char;

/// What makes process groups of NCCL.
pub struct Nccl(Make);

impl Nccl {
    /// An error where there is no NCCL says why.
    pub fn load() -> Result<Nccl> {
        let library = LIBRARY.context("this `ntm` was built without the headers of CUDA and NCCL")?;
        // SAFETY: a C string and a flag; what comes back is a file of nobody else's, or -1.
        let mut file = unsafe {
            match libc::memfd_create(c"libntm_nccl.so".as_ptr(), libc::MFD_CLOEXEC) {
                -1 => return Err(std::io::Error::last_os_error().into()),
                file => File::from_raw_fd(file),
            }
        };
        file.write_all(library)?;
        let path = text(&format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        // SAFETY: the library is ours, and is never closed; its function is of the type that nccl.cpp gives it.
        unsafe {
            let opened = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            if opened.is_null() {
                bail!("{}", CStr::from_ptr(libc::dlerror()).to_string_lossy());
            }
            let function = libc::dlsym(opened, c"ntm_group_nccl".as_ptr());
            if function.is_null() {
                bail!("the library has no ntm_group_nccl");
            }
            Ok(Nccl(transmute::<*mut c_void, Make>(function)))
        }
    }

    /// For tensors on cards, a card a process. `prefix`: what its keys in the store start with. The first sum connects
    /// the cards, for which NCCL has no time-out.
    pub fn group(&self, store: &Store, prefix: &str, (rank, size): (usize, usize)) -> Result<ProcessGroup> {
        let (prefix, mut made) = (text(prefix)?, null_mut());
        let (rank, size, timeout) = (rank as c_int, size as c_int, store.timeout.as_millis() as u64);
        // SAFETY: the store lives, `prefix` is a C string, `made` a place for a pointer.
        check(unsafe { (self.0)(store.handle.0, prefix.as_ptr(), rank, size, timeout, &mut made) })?;
        Ok(ProcessGroup(made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;
    use tch::{Cuda, Device, Kind, Tensor};

    #[test]
    fn a_group_of_nccl_sums_on_a_card_or_says_why_it_cannot() {
        let nccl = match Nccl::load() {
            Ok(nccl) => nccl,
            Err(error) => return println!("skipped: {error:#}"), // as on every machine whose libtorch is for CPU only
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let store = Store::open("127.0.0.1", port, true, Duration::from_secs(20)).unwrap();
        let group = nccl.group(&store, "test", (0, 1));
        if Cuda::device_count() == 0 {
            let message = group.err().expect("there is no card").to_string();
            println!("{message}");
            return assert!(message.contains("no GPUs found"), "{message}");
        }
        let mut tensor = Tensor::full([1000], 2.5, (Kind::Float, Device::Cuda(0)));
        group.unwrap().sum(&mut tensor).unwrap();
        assert_eq!(f64::try_from(tensor.sum(Kind::Float)).unwrap(), 2500.0);
    }
}
