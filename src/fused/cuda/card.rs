//! A CUDA card that runs the kernels, on libtorch's buffers and in order with its work.

use super::cache::Cache;
use super::compiler;
use super::kernels::{Blocks, Buffers, Grid, Kernel, Launcher, Sizes, Update, source};
use anyhow::{Context, Result, anyhow, bail};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUfunction_attribute_enum as FunctionAttribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DeviceRepr, LaunchArgs, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

// SAFETY: plain values in C's layout, as the kernels' parameters are.
unsafe impl DeviceRepr for Sizes {}
// SAFETY: as above.
unsafe impl DeviceRepr for Buffers {}
// SAFETY: as above.
unsafe impl DeviceRepr for Update {}

/// The sizes whose kernels this process has compared with the CPU's engine, by the number of the card.
static PROVEN: Mutex<Vec<(usize, Sizes)>> = Mutex::new(vec![]);

pub struct Card {
    index: usize,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    architecture: String,
    multiprocessors: usize,
    shared_limit: usize,
    /// The kernels compiled so far, in the order of `Kernel::ALL`.
    functions: RefCell<HashMap<Sizes, [CudaFunction; Kernel::ALL.len()]>>,
}

impl Card {
    /// The card of a number.
    pub fn new(index: usize) -> Result<Card> {
        // SAFETY: it opens the driver's library by its names.
        if !unsafe { sys::is_culib_present() } {
            bail!("the NVIDIA driver (libcuda.so.1) is not installed");
        }
        // the primary context, which is libtorch's, too
        let context = CudaContext::new(index).with_context(|| format!("cannot use cuda:{index}"))?;
        // SAFETY: no cudarc slices are used, whose reads and writes the events would order; one stream orders all.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context.compute_capability()?;
        let attribute = |attribute| Ok::<_, anyhow::Error>(context.attribute(attribute)? as usize);
        Ok(Card {
            index,
            stream: context.default_stream(), // the legacy one, which libtorch uses unless told otherwise
            architecture: format!("sm_{major}{minor}"),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_limit: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            functions: RefCell::default(),
            context,
        })
    }

    /// The kernels for blocks of these sizes, compiled where they have not been.
    fn function(&self, kernel: Kernel, sizes: &Sizes) -> Result<CudaFunction> {
        let mut compiled = self.functions.borrow_mut();
        let functions = match compiled.entry(*sizes) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let functions = load(&self.context, &compiler::options(sizes, &self.architecture))?;
                for function in &functions {
                    let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                    function.set_attribute(most, self.shared_limit as i32)?;
                }
                entry.insert(functions)
            }
        };
        Ok(functions[kernel.index()].clone())
    }

    /// A kernel that is the same for all sizes, of those that have been compiled.
    fn any(&self, kernel: Kernel) -> Result<CudaFunction> {
        let compiled = self.functions.borrow();
        let functions = compiled.values().next().context("no kernel has been compiled yet")?;
        Ok(functions[kernel.index()].clone())
    }
}

fn proven() -> MutexGuard<'static, Vec<(usize, Sizes)>> {
    PROVEN.lock().unwrap_or_else(PoisonError::into_inner) // a whole entry is there or not
}

/// The kernels from the cache or compiled; compiled again if the driver does not take what the cache has.
fn load(context: &Arc<CudaContext>, options: &[String]) -> Result<[CudaFunction; Kernel::ALL.len()]> {
    let (major, minor) = compiler::version()?;
    let (cache, key) = (Cache::of_user(), format!("NVRTC {major}.{minor}\n{}\n{}", options.join(" "), source()));
    let from = |code: Vec<u8>| -> Result<[CudaFunction; Kernel::ALL.len()]> {
        let module = context.load_module(Ptx::from_binary(code))?;
        let functions: Vec<CudaFunction> = Kernel::ALL
            .iter()
            .map(|kernel| module.load_function(&kernel.name().to_string_lossy()))
            .collect::<Result<_, _>>()?;
        functions.try_into().map_err(|_| anyhow!("as many functions as kernels"))
    };
    let get = || cache.get(&key, || Ok::<_, anyhow::Error>(compiler::compile(options)?.0));
    from(get()?).or_else(|_| {
        cache.forget(&key);
        from(get()?).context("the driver does not take the compiled kernels")
    })
}

/// Queues a kernel with its arguments.
///
/// # Safety
///
/// The arguments are the kernel's, and their addresses as `Launcher` wants them.
unsafe fn queue(kernel: Kernel, grid: Grid, arguments: &mut LaunchArgs) -> Result<()> {
    let config = LaunchConfig {
        grid_dim: (grid.blocks as u32, 1, 1),
        block_dim: (grid.threads as u32, 1, 1),
        shared_mem_bytes: grid.shared as u32,
    };
    // SAFETY: the caller's.
    unsafe { arguments.launch(config) }.with_context(|| format!("cannot launch {:?}", kernel.name()))?;
    Ok(())
}

impl Launcher for Card {
    unsafe fn launch(&self, kernel: Kernel, grid: Grid, sizes: &Sizes, buffers: &Buffers) -> Result<()> {
        let function = self.function(kernel, sizes)?;
        // SAFETY: the caller's; these are the arguments of all kernels but the update's.
        unsafe { queue(kernel, grid, self.stream.launch_builder(&function).arg(sizes).arg(buffers)) }
    }

    fn prepare(&self, sizes: &Sizes) -> Result<()> {
        self.function(Kernel::Forward, sizes).map(|_| ())
    }

    unsafe fn launch_update(&self, kernel: Kernel, grid: Grid, update: &Update) -> Result<()> {
        let function = self.any(kernel)?;
        // SAFETY: the caller's; this is the argument of both.
        unsafe { queue(kernel, grid, self.stream.launch_builder(&function).arg(update)) }
    }

    fn blocks(&self, sequences: usize) -> Blocks {
        Blocks::on_card(sequences, self.multiprocessors, self.shared_limit)
    }

    fn is_proven(&self, sizes: &Sizes) -> bool {
        proven().contains(&(self.index, *sizes))
    }

    fn set_proven(&self, sizes: &Sizes) {
        proven().push((self.index, *sizes));
    }
}
