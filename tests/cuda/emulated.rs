//! A launcher that runs the kernels on the CPU, compiled as C++: see emulated.h.

use anyhow::{Result, bail};
use ntm::fused::cuda::{Blocks, Buffers, Grid, Kernel, Launcher, NORM_BLOCKS, Sizes, Update, source};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use tch::Kind;

type Launch = unsafe extern "C" fn(
    c_int,
    *const Sizes,
    *const Buffers,
    *const Update,
    c_int,
    c_int,
    c_int,
    c_int,
    u64,
    c_int,
) -> *const c_char;

struct Library {
    launch: Launch,
    barriers: unsafe extern "C" fn() -> u64,
    /// One launch at a time: the emulated threads are global.
    running: Mutex<()>,
}

impl Library {
    /// The kernels with `float` or `double` for real, compiled at the first call. `few_rows`: with room for four rows a
    /// lane, as on a card with 128 rows, which makes a warp work on four columns at once.
    fn of(kind: Kind, few_rows: bool) -> &'static Library {
        static LIBRARIES: [OnceLock<Library>; 4] = [const { OnceLock::new() }; 4];
        let double = kind == Kind::Double;
        let real = if double { "double" } else { "float" };
        LIBRARIES[2 * few_rows as usize + double as usize]
            .get_or_init(|| Library::compile(real, if few_rows { 4 } else { 128 }))
    }

    fn compile(real: &str, rows: usize) -> Library {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/emulated.cpp");
        let name = |end: &str| out.join(format!("kernels-{real}-{rows}-{}{end}", std::process::id()));
        let (kernels, library) = (name(".cu"), name(".so"));
        std::fs::write(&kernels, source()).unwrap();
        let compiler = std::env::var("CXX").unwrap_or("g++".to_string());
        let flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"];
        let output = Command::new(compiler)
            .args(flags)
            .args([
                format!("-DREAL={real}"),
                format!("-DMOST_ROWS={rows}"),
                format!("-DKERNELS={kernels:?}"),
                "-o".to_string(),
            ])
            .args([&library, &from])
            .output()
            .expect("a C++ compiler, which building needs, too");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = CString::new(library.to_str().unwrap()).unwrap();
        // SAFETY: our own library, which stays open; the symbols have these types in emulated.cpp.
        let library = unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            assert!(!handle.is_null(), "{:?}", CStr::from_ptr(libc::dlerror()));
            let symbol = |name: &CStr| {
                let symbol = libc::dlsym(handle, name.as_ptr());
                assert!(!symbol.is_null(), "{name:?}");
                symbol
            };
            Library {
                launch: std::mem::transmute::<*mut libc::c_void, Launch>(symbol(c"emulated_launch")),
                barriers: std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn() -> u64>(symbol(
                    c"emulated_barriers",
                )),
                running: Mutex::new(()),
            }
        };
        for file in [&kernels, &name(".so")] {
            std::fs::remove_file(file).unwrap(); // it stays mapped
        }
        library
    }
}

/// Blocks of `block` threads in warps of `warp`. Each launch draws another order from `seed` and its count.
pub struct Emulated {
    kind: Kind,
    block: usize,
    warp: usize,
    seed: u64,
    launches: Cell<u64>,
    /// A barrier to leave out.
    skip: Option<u32>,
    shared_limit: usize,
    together: usize,
    few_rows: bool,
}

impl Emulated {
    pub fn new(kind: Kind, block: usize, warp: usize, seed: u64) -> Emulated {
        assert!(block.is_multiple_of(warp));
        // what a block of compute capability 9.0 may have, and for f64 twice that
        let shared_limit = 227 * 1024 * kind.elt_size_in_bytes() / 4;
        Emulated {
            kind,
            block,
            warp,
            seed,
            launches: Cell::new(0),
            skip: None,
            shared_limit,
            together: 1,
            few_rows: false,
        }
    }

    pub fn one_thread(kind: Kind) -> Emulated {
        Emulated::new(kind, 1, 1, 0)
    }

    pub fn without_barrier(self, barrier: u32) -> Emulated {
        Emulated { skip: Some(barrier), ..self }
    }

    fn run(
        &self,
        kernel: Kernel,
        grid: Grid,
        sizes: *const Sizes,
        buffers: *const Buffers,
        update: *const Update,
    ) -> Result<()> {
        let library = Library::of(self.kind, self.few_rows);
        let _running = library.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.launches.set(self.launches.get() + 1);
        let seed = self.seed * 1_000_003 + self.launches.get();
        let [blocks, threads, shared, warp] = [grid.blocks, grid.threads, grid.shared, self.warp].map(|n| n as c_int);
        let (index, skip) = (kernel.index() as c_int, self.skip.map_or(-1, |skip| skip as c_int));
        // SAFETY: the engine's buffers are CPU tensors of this kind, alive during the call; the message is static.
        let failure = unsafe {
            let failure = (library.launch)(index, sizes, buffers, update, blocks, threads, warp, shared, seed, skip);
            (!failure.is_null()).then(|| CStr::from_ptr(failure).to_string_lossy())
        };
        match failure {
            Some(failure) => bail!("{kernel:?}: {failure}"),
            None => Ok(()),
        }
    }

    /// With this many sequences a block.
    pub fn with_together(self, together: usize) -> Emulated {
        Emulated { together, ..self }
    }

    /// With room for four rows a lane.
    pub fn with_few_rows(self) -> Emulated {
        Emulated { few_rows: true, ..self }
    }

    pub fn with_shared_limit(self, shared_limit: usize) -> Emulated {
        Emulated { shared_limit, ..self }
    }
}

/// The barriers that launches of a kind have met so far.
pub fn barriers(kind: Kind) -> Vec<u32> {
    // SAFETY: it reads a number.
    let seen = unsafe { (Library::of(kind, false).barriers)() };
    (0..64).filter(|barrier| seen >> barrier & 1 == 1).collect()
}

impl Launcher for Emulated {
    unsafe fn launch(&self, kernel: Kernel, grid: Grid, sizes: &Sizes, buffers: &Buffers) -> Result<()> {
        self.run(kernel, grid, sizes, buffers, std::ptr::null())
    }

    unsafe fn launch_update(&self, kernel: Kernel, grid: Grid, update: &Update) -> Result<()> {
        let grid = Grid { blocks: (grid.blocks * grid.threads).div_ceil(self.block), threads: self.block, ..grid };
        let grid = if kernel == Kernel::Norm { Grid { blocks: NORM_BLOCKS, ..grid } } else { grid };
        self.run(kernel, grid, std::ptr::null(), std::ptr::null(), update)
    }

    fn blocks(&self, _sequences: usize) -> Blocks {
        Blocks { threads: self.block, lanes: self.warp, together: self.together, at_once: 1, shared: self.shared_limit }
    }
}
