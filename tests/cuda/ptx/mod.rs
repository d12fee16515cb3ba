//! A launcher that runs what NVRTC makes of the kernels: their PTX, instruction by instruction, by all threads of a block
//! as a card has them. That is the code of a card, with the sizes as constants, loads of 16 bytes and asynchronous
//! copies, where `../emulated.rs` compiles the same source as C++. Unaligned accesses, those beyond shared memory, and
//! those of two threads that no barrier orders are errors with their place in the source. (An access beyond a tensor is
//! one of this process: an address sanitizer tells it.)

mod block;
mod operations;
mod program;
mod races;

use anyhow::{Result, anyhow};
use ntm::fused::cuda::{Blocks, Buffers, Grid, Kernel, Launcher, Sizes, Update, compiler};
use program::{PARAMETER, Program};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

pub struct Interpreted {
    architecture: String,
    sequences: usize,
    shared: usize,
    compiled: RefCell<HashMap<Sizes, Rc<Vec<Program>>>>,
    proven: RefCell<Vec<Sizes>>,
    left_out: Cell<Option<(Kernel, usize)>>,
}

impl Interpreted {
    /// A card of an architecture, `compute_90` for instance, with `shared` bytes of shared memory a block, whose blocks
    /// run every batch as one of so many sequences a multiprocessor. An engine proves itself on it first.
    pub fn new(architecture: &str, sequences: usize, shared: usize) -> Interpreted {
        let (compiled, proven, left_out) = Default::default();
        Interpreted { architecture: architecture.to_string(), sequences, shared, compiled, proven, left_out }
    }

    /// From now on without one barrier of a kernel, and with no proof.
    pub fn leave_out(&self, kernel: Kernel, barrier: usize) {
        self.left_out.set(Some((kernel, barrier)));
    }

    /// Where in the source each barrier of a kernel comes from, of the one machine that has been compiled.
    pub fn barriers(&self, kernel: Kernel) -> Vec<String> {
        let compiled = self.compiled.borrow();
        assert_eq!(compiled.len(), 1);
        let programs = compiled.values().map(|programs| &programs[kernel.index()]);
        programs.flat_map(|program| program.barriers().map(|at| program.place(at))).collect()
    }

    fn kernels(&self, sizes: &Sizes) -> Result<Rc<Vec<Program>>> {
        if let Some(programs) = self.compiled.borrow().get(sizes) {
            return Ok(programs.clone());
        }
        let text = String::from_utf8(compiler::compile(&compiler::options(sizes, &self.architecture))?.0)?;
        let program = |kernel: Kernel| Program::parse(&text, &kernel.name().to_string_lossy());
        let programs = Rc::new(Kernel::ALL.into_iter().map(program).collect::<Result<Vec<_>>>()?);
        self.compiled.borrow_mut().insert(*sizes, programs.clone());
        Ok(programs)
    }

    /// # Safety
    ///
    /// As `Launcher` wants it.
    unsafe fn run(&self, programs: &[Program], kernel: Kernel, grid: Grid, parameters: &[u8]) -> Result<()> {
        let program = &programs[kernel.index()];
        let left_out = self.left_out.get().filter(|(of, _)| *of == kernel);
        let left_out = left_out.and_then(|(_, barrier)| program.barriers().nth(barrier));
        // SAFETY: the caller's.
        let done = unsafe { block::launch(program, grid, parameters, left_out) };
        done.map_err(|error| anyhow!("{kernel:?}, {error}"))
    }
}

/// The bytes of a kernel's parameter, in its place.
fn bytes<T: Copy>(value: &T) -> Vec<u8> {
    let mut bytes = vec![0; PARAMETER];
    assert!(size_of::<T>() <= PARAMETER);
    // SAFETY: there is room; padding is copied as what it is.
    unsafe { std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast(), bytes.as_mut_ptr(), size_of::<T>()) };
    bytes
}

impl Launcher for Interpreted {
    unsafe fn launch(&self, kernel: Kernel, grid: Grid, sizes: &Sizes, buffers: &Buffers) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.run(&self.kernels(sizes)?, kernel, grid, &[bytes(sizes), bytes(buffers)].concat()) }
    }

    unsafe fn launch_update(&self, kernel: Kernel, grid: Grid, update: &Update) -> Result<()> {
        let programs = self.compiled.borrow().values().next().expect("as a card, after a gradient").clone();
        // SAFETY: the caller's.
        unsafe { self.run(&programs, kernel, grid, &bytes(update)) }
    }

    fn blocks(&self, sequences: usize) -> Blocks {
        Blocks::on_card(if sequences == 1 { 1 } else { self.sequences }, 1, self.shared)
    }

    fn is_proven(&self, sizes: &Sizes) -> bool {
        self.left_out.get().is_some() || self.proven.borrow().contains(sizes)
    }

    fn set_proven(&self, sizes: &Sizes) {
        self.proven.borrow_mut().push(*sizes);
    }
}

#[test]
fn what_a_card_would_fault_on_or_may_do_in_any_order_is_an_error_with_its_place() {
    let mut memory = [0_u32; 4];
    let mut run = |body: &str, blocks| {
        let text = format!(".visible .entry kernel(\n)\n{{\n.loc 1 7 0\n{body}\nret;\n}}\n.file 1 \"a.cu\"\n");
        let text = text.replace("GLOBAL", &(memory.as_mut_ptr() as u64).to_string());
        let grid = Grid { blocks, threads: 64, shared: 1024 };
        // SAFETY: of global memory it uses the first word of `memory`.
        unsafe { block::launch(&Program::parse(&text, "kernel").unwrap(), grid, &[], None) }
    };
    let mine = "mul.wide.u32 %rd1, %tid.x, 4;\nadd.s64 %rd2, %rd1, shared_memory;\nst.shared.u32 [%rd2], 1;\n";
    let of_another = "xor.b32 %r1, %tid.x, 32;\nmul.wide.u32 %rd3, %r1, 4;\nadd.s64 %rd4, %rd3, shared_memory;\nld.shared.u32 %r2, [%rd4];\n";
    let copy = "setp.eq.s32 %p1, %tid.x, 0;\nmov.u64 %rd5, GLOBAL;\nmov.u64 %rd6, shared_memory;\n@%p1 cp.async.ca.shared.global [%rd6], [%rd5], 4;\n";
    let (arrived, all, first) = ("cp.async.wait_all;\n", "bar.sync 0;\n", "ld.shared.u32 %r3, [shared_memory];\n");
    for (body, expected) in [
        (format!("{mine}{all}{of_another}"), ""),
        (format!("{mine}bar.warp.sync -1;\n{of_another}"), "in no order with thread"),
        (format!("{mine}{of_another}"), "in no order with thread"),
        (format!("{copy}{arrived}{all}{first}"), ""),
        (format!("{copy}{all}{first}"), "in no order with a copy that has not arrived"),
        (format!("{copy}{arrived}{first}"), "in no order with thread 0"),
        (format!("{copy}{all}setp.eq.s32 %p2, %tid.x, 9;\n@%p2 st.global.u32 [%rd5], 1;"), "in no order with a copy"),
        ("st.shared.f32 [shared_memory+2], 0f00000000;".to_string(), "4 bytes at address 0x402"),
        ("ld.shared.v2.f32 {%f1, %f2}, [shared_memory+4];".to_string(), "8 bytes at address 0x404"),
        ("ld.shared.f32 %f1, [shared_memory+1024];".to_string(), "byte 1024 of shared memory of 1024 bytes"),
        ("bar.sync 1, 96;".to_string(), "waits for ever"),
        ("bar.sync 16;".to_string(), "barrier 16, of 16"),
        ("setp.eq.s32 %p1, %tid.x, 3;\n@%p1 bar.warp.sync -1;".to_string(), "waits for ever"),
    ] {
        match run(&body, 1) {
            Ok(()) => assert_eq!(expected, "", "{body}"),
            Err(error) => {
                assert!(!expected.is_empty() && error.contains(expected), "{body}: {error}");
                assert!(error.starts_with("a.cu:7: thread "), "{body}: {error}");
            }
        }
    }
    let alone = "setp.ne.s32 %p1, %tid.x, 0;\nsetp.ne.s32 %p2, %ctaid.x, 0;\nmov.u64 %rd5, GLOBAL;\n@%p1 ret;\n";
    let apart = run(&format!("{alone}@%p2 ld.global.u32 %r1, [%rd5];\n@!%p2 st.global.u32 [%rd5], 1;"), 2);
    assert!(apart.is_err_and(|error| error.contains("in no order with another block")));
}
