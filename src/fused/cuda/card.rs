//! A CUDA card that runs the kernels, on libtorch's buffers and in order with its work.

use super::cache::Cache;
use super::compiler;
use super::kernels::{Buffers, Grid, Kernel, Launcher, Sizes, source};
use anyhow::{Context, Result, bail};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUfunction_attribute_enum as FunctionAttribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

// SAFETY: plain values in C's layout, as the kernels' parameters are.
unsafe impl DeviceRepr for Sizes {}
// SAFETY: as above.
unsafe impl DeviceRepr for Buffers {}

pub struct Card {
    stream: Arc<CudaStream>,
    /// In the order of `Kernel::ALL`.
    functions: [CudaFunction; 3],
    multiprocessors: usize,
    shared_limit: usize,
}

impl Card {
    /// The card of a number, with the kernels compiled for it and for machines of these sizes.
    pub fn new(index: usize, sizes: &Sizes) -> Result<Card> {
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
        let shared_limit = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let options = compiler::options(sizes, &format!("sm_{major}{minor}"));
        let functions = load(&context, &options)?;
        for function in &functions {
            let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared_limit as i32)?;
        }
        Ok(Card {
            stream: context.default_stream(), // the legacy one, which libtorch uses unless told otherwise
            functions,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_limit,
        })
    }
}

/// The kernels from the cache or compiled; compiled again if the driver does not take what the cache has.
fn load(context: &Arc<CudaContext>, options: &[String]) -> Result<[CudaFunction; 3]> {
    let (cache, key) = (Cache::of_user(), (source(), options, compiler::version()?));
    let from = |code: Vec<u8>| -> Result<[CudaFunction; 3]> {
        let module = context.load_module(Ptx::from_binary(code))?;
        let [pack, forward, backward] =
            Kernel::ALL.map(|kernel| module.load_function(&kernel.name().to_string_lossy()));
        Ok([pack?, forward?, backward?])
    };
    let get = || cache.get(&key, || Ok::<_, anyhow::Error>(compiler::compile(options)?.0));
    from(get()?).or_else(|_| {
        cache.forget(&key);
        from(get()?).context("the driver does not take the compiled kernels")
    })
}

impl Launcher for Card {
    fn launch(&self, kernel: Kernel, grid: Grid, sizes: &Sizes, buffers: &Buffers) -> Result<()> {
        let index = Kernel::ALL.iter().position(|&other| other == kernel).unwrap_or(0);
        let config = LaunchConfig {
            grid_dim: (grid.blocks as u32, 1, 1),
            block_dim: (grid.threads as u32, 1, 1),
            shared_mem_bytes: grid.shared as u32,
        };
        let mut arguments = self.stream.launch_builder(&self.functions[index]);
        arguments.arg(sizes).arg(buffers);
        // SAFETY: the parameters are the kernel's; the buffers are libtorch's, which frees them in the order of this stream.
        unsafe { arguments.launch(config) }.with_context(|| format!("cannot launch {:?}", kernel.name()))?;
        Ok(())
    }

    /// More where blocks do not fill the card, to have more loads in flight in each.
    fn threads(&self, blocks: usize) -> usize {
        if blocks <= self.multiprocessors { 512 } else { 256 }
    }

    fn shared_limit(&self) -> usize {
        self.shared_limit
    }
}
