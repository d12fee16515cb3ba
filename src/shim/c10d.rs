//! The engine of torch.distributed, c10d: what the processes of a job share. Every call here waits for the others at
//! most as long as the time-out of its store, but for the first sum of NCCL.

use super::{check, take, text};
use anyhow::{Context, Result, bail};
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn ntm_store_open(
        host: *const c_char,
        port: u16,
        serves: bool,
        timeout: u64,
        made: *mut *mut c_void,
    ) -> *mut c_char;
    fn ntm_store_close(store: *mut c_void);
    fn ntm_store_set(store: *mut c_void, key: *const c_char, value: *const u8, size: usize) -> *mut c_char;
    fn ntm_store_has(store: *mut c_void, keys: *const *const c_char, count: usize, has: *mut bool) -> *mut c_char;
    fn ntm_store_get(
        store: *mut c_void,
        key: *const c_char,
        take: extern "C" fn(*mut c_void, *const u8, usize),
        to: *mut c_void,
    ) -> *mut c_char;
    fn ntm_interfaces_open(names: *const c_char, address: *const c_char, made: *mut *mut c_void) -> *mut c_char;
    fn ntm_interfaces_close(interfaces: *mut c_void);
    fn ntm_group_gloo(
        store: *mut c_void,
        prefix: *const c_char,
        rank: c_int,
        size: c_int,
        interfaces: *const c_void,
        timeout: u64,
        made: *mut *mut c_void,
    ) -> *mut c_char;
    fn ntm_group_close(group: *mut c_void);
    fn ntm_group_reduce(group: *mut c_void, tensor: *const C_tensor, largest: bool) -> *mut c_char;
    fn ntm_group_broadcast(group: *mut c_void, tensor: *const C_tensor) -> *mut c_char;
}

/// A TCPStore: keys and values that one process, or torchrun's agent, keeps for all.
pub struct Store {
    pub(super) handle: Arc<Handle>,
    pub(super) timeout: Duration,
    /// Whether a call has had no answer in that time: TCPStore lets no other through behind it.
    silent: AtomicBool,
}

pub(super) struct Handle(pub(super) *mut c_void);

// SAFETY: c10d's TCPStore takes a lock of its own in each operation.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The result of a call, in a thread of its own: c10d reads what a store answers without a deadline, and the machine
/// that keeps it may be frozen or cut off. None if it takes longer.
fn within<T: Send + 'static>(time: Duration, call: impl FnOnce() -> Result<T> + Send + 'static) -> Option<Result<T>> {
    let (done, answer) = mpsc::channel();
    match thread::Builder::new().spawn(move || done.send(call())) {
        Ok(_) => answer.recv_timeout(time).ok(),
        Err(error) => Some(Err(error).context("cannot start a thread")),
    }
}

impl Store {
    /// Connects to the store at an address, or serves it there.
    pub fn open(host: &str, port: u16, serves: bool, timeout: Duration) -> Result<Store> {
        let host = text(host)?;
        let opened = within(timeout, move || {
            let mut made = null_mut();
            // SAFETY: `host` is a C string, `made` a place for a pointer.
            check(unsafe { ntm_store_open(host.as_ptr(), port, serves, timeout.as_millis() as u64, &mut made) })?;
            Ok(Handle(made))
        });
        let handle = Arc::new(opened.context("no answer")??);
        Ok(Store { handle, timeout, silent: AtomicBool::new(false) })
    }

    /// The result of a call, if the store answers in time.
    fn answered<T: Send + 'static>(&self, call: impl FnOnce(&Handle) -> Result<T> + Send + 'static) -> Result<T> {
        if !self.silent.load(Ordering::Relaxed) {
            let handle = self.handle.clone();
            if let Some(answer) = within(self.timeout, move || call(&handle)) {
                return answer;
            }
            self.silent.store(true, Ordering::Relaxed);
        }
        bail!("no answer within {} s", self.timeout.as_secs())
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let (key, value) = (text(key)?, value.to_vec());
        // SAFETY: the store lives; `key` is a C string, and the value has the size that is told.
        self.answered(move |store| check(unsafe { ntm_store_set(store.0, key.as_ptr(), value.as_ptr(), value.len()) }))
    }

    /// Whether all of these keys have a value.
    pub fn has(&self, keys: &[String]) -> Result<bool> {
        let keys = keys.iter().map(|key| text(key)).collect::<Result<Vec<CString>>>()?;
        self.answered(move |store| {
            let (pointers, mut has) = (keys.iter().map(|key| key.as_ptr()).collect::<Vec<_>>(), false);
            // SAFETY: the store lives, the pointers are to C strings that do, and `has` is a place for a bool.
            check(unsafe { ntm_store_has(store.0, pointers.as_ptr(), pointers.len(), &mut has) })?;
            Ok(has)
        })
    }

    /// The value of a key; waits until some process has set it.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        let key = text(key)?;
        self.answered(move |store| {
            let mut value = vec![];
            // SAFETY: the store lives, `key` is a C string, and `take` gets `value` back.
            check(unsafe { ntm_store_get(store.0, key.as_ptr(), take, (&raw mut value).cast()) })?;
            Ok(value)
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: `ntm_store_open` made it; process groups that use it hold references of their own.
        unsafe { ntm_store_close(self.0) }
    }
}

/// The network interfaces of this machine that Gloo is to use.
pub struct Interfaces(*mut c_void);

// SAFETY: nothing but names and addresses, and what Gloo shares among threads of its own.
unsafe impl Send for Interfaces {}

impl Interfaces {
    /// The interfaces of these names (comma-separated), or if there are none the one that has `address`.
    pub fn open(names: &str, address: &str) -> Result<Interfaces> {
        let (names, address, mut made) = (text(names)?, text(address)?, null_mut());
        // SAFETY: two C strings, and a place for a pointer.
        check(unsafe { ntm_interfaces_open(names.as_ptr(), address.as_ptr(), &mut made) })?;
        Ok(Interfaces(made))
    }
}

impl Drop for Interfaces {
    fn drop(&mut self) {
        // SAFETY: `ntm_interfaces_open` made it; process groups that use them hold references of their own.
        unsafe { ntm_interfaces_close(self.0) }
    }
}

/// Processes that work on tensors together; all must make the same calls in the same order.
pub struct ProcessGroup(pub(super) *mut c_void);

// SAFETY: c10d's process groups belong to no thread.
unsafe impl Send for ProcessGroup {}

impl ProcessGroup {
    /// Gloo, for tensors on the CPU. `prefix`: what its keys in the store start with.
    pub fn gloo(
        store: &Store,
        prefix: &str,
        (rank, size): (usize, usize),
        interfaces: Interfaces,
    ) -> Result<ProcessGroup> {
        let prefix = text(prefix)?;
        let (rank, size, timeout) = (rank as c_int, size as c_int, store.timeout.as_millis() as u64);
        // Gloo waits for each of the others in turn, with that time-out of its own, where the store answers
        let (handle, most) = (store.handle.clone(), 2 * store.timeout);
        let made = within(most, move || {
            let (own, store, mut made) = (&interfaces, &handle, null_mut());
            // SAFETY: store and interfaces live, `prefix` is a C string, `made` a place for a pointer.
            check(unsafe { ntm_group_gloo(store.0, prefix.as_ptr(), rank, size, own.0, timeout, &mut made) })?;
            Ok(ProcessGroup(made))
        });
        made.with_context(|| format!("no answer within {} s", most.as_secs()))?
    }

    /// Makes each element the sum over all processes, in place, the same bits everywhere.
    pub fn sum(&self, tensor: &mut Tensor) -> Result<()> {
        self.reduce(tensor, false)
    }

    /// Makes each element the largest of all processes, in place.
    pub fn largest(&self, tensor: &mut Tensor) -> Result<()> {
        self.reduce(tensor, true)
    }

    fn reduce(&self, tensor: &mut Tensor, largest: bool) -> Result<()> {
        assert!(tensor.is_contiguous(), "c10d takes others without a word");
        // SAFETY: the group and the tensor live, and nobody else has the tensor.
        check(unsafe { ntm_group_reduce(self.0, tensor.as_ptr(), largest) })
    }

    /// Makes the tensor that of rank 0, in place.
    pub fn broadcast(&self, tensor: &mut Tensor) -> Result<()> {
        assert!(tensor.is_contiguous(), "c10d takes others without a word");
        // SAFETY: the group and the tensor live, and nobody else has the tensor.
        check(unsafe { ntm_group_broadcast(self.0, tensor.as_ptr()) })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: `ntm_group_gloo` or `ntm_group_nccl` made it, and nothing else frees it.
        unsafe { ntm_group_close(self.0) }
    }
}
