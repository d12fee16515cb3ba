//! An engine that proves itself first runs as one that does not, or refuses to.

use crate::emulated::Emulated;
use crate::machines::{MACHINES, batch, recipe, weights};
use anyhow::Result;
use ntm::config::Recipe;
use ntm::engine::Engine;
use ntm::fused::CudaFused;
use ntm::fused::cuda::{Blocks, Buffers, Grid, Kernel, Launcher, Sizes, Update};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

/// A launcher that gives one kernel other buffers, or another rate, than it should have, and counts the launches.
struct Wrong {
    inner: Emulated,
    kernel: Kernel,
    change: fn(Buffers) -> Buffers,
    launches: Cell<usize>,
    /// None where nothing needs a proof.
    proven: Option<RefCell<Vec<Sizes>>>,
}

impl Launcher for Wrong {
    unsafe fn launch(&self, kernel: Kernel, grid: Grid, sizes: &Sizes, buffers: &Buffers) -> Result<()> {
        self.launches.set(self.launches.get() + 1);
        let buffers = if kernel == self.kernel { (self.change)(*buffers) } else { *buffers };
        // SAFETY: as the caller promises; a change leaves the addresses.
        unsafe { self.inner.launch(kernel, grid, sizes, &buffers) }
    }

    unsafe fn launch_update(&self, kernel: Kernel, grid: Grid, update: &Update) -> Result<()> {
        let rate = if kernel == self.kernel { 1.1 * update.rate } else { update.rate };
        // SAFETY: as the caller promises.
        unsafe { self.inner.launch_update(kernel, grid, &Update { rate, ..*update }) }
    }

    fn blocks(&self, sequences: usize) -> Blocks {
        Blocks { together: if sequences > 4 { 2 } else { 1 }, ..self.inner.blocks(sequences) }
    }

    fn is_proven(&self, sizes: &Sizes) -> bool {
        self.proven.as_ref().is_none_or(|proven| proven.borrow().contains(sizes))
    }

    fn set_proven(&self, sizes: &Sizes) {
        self.proven.as_ref().unwrap().borrow_mut().push(*sizes);
    }
}

/// On which engines prove themselves.
fn launcher(kernel: Kernel, change: fn(Buffers) -> Buffers) -> Wrong {
    let (inner, proven) = (Emulated::new(Kind::Float, 8, 4, 1), Some(RefCell::default()));
    Wrong { inner, kernel, change, launches: Cell::new(0), proven }
}

fn engine(recipe: &Recipe, launcher: Rc<Wrong>) -> CudaFused {
    CudaFused::new(recipe.network(), launcher, (Kind::Float, Device::Cpu)).unwrap()
}

fn theta(recipe: &Recipe) -> Tensor {
    Tensor::from_slice(&weights(&recipe.layout(), 0.1, 7)).to_kind(Kind::Float)
}

#[test]
fn every_machine_proves_itself_and_computes_what_it_does_without() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let (theta, batch) = (theta(&recipe), batch(&recipe, &[5, 2], 7));
        let right = || launcher(Kernel::Pack, |buffers| buffers);
        let mut trusted = engine(&recipe, Rc::new(Wrong { proven: None, ..right() }));
        let expected = trusted.forward(&theta, &batch).unwrap().to_vec();
        let mut proving = engine(&recipe, Rc::new(right()));
        assert_eq!(proving.forward(&theta, &batch).unwrap(), expected, "{name}");
    }
}

#[test]
fn kernels_that_are_wrong_are_refused_by_the_tensor_before_anything_is_computed() {
    let recipe = recipe(MACHINES[8].1);
    let (theta, batch) = (theta(&recipe), batch(&recipe, &[5, 2], 7));
    for (kernel, change, named) in [
        (Kernel::Pack, (|buffers| Buffers { pack_count: 40, ..buffers }) as fn(Buffers) -> Buffers, "logits, element"),
        (Kernel::Forward, |buffers| Buffers { scale: 0.5, ..buffers }, "logits, element"),
        (Kernel::Loss, |buffers| Buffers { squared: 1, ..buffers }, "gradient of `"),
        (Kernel::Backward, |buffers| Buffers { scale: 0.3, ..buffers }, "gradient of `"),
        (Kernel::Update, |buffers| buffers, "the weights after an update"),
    ] {
        let mut engine = engine(&recipe, Rc::new(launcher(kernel, change)));
        for _again in 0..2 {
            let error = engine.forward(&theta, &batch).unwrap_err().to_string();
            assert!(error.contains("its kernels are wrong here") && error.contains(named), "{kernel:?}: {error}");
        }
        let mut gradient = theta.zeros_like();
        assert!(engine.gradient(&theta, &batch, &mut gradient).is_err(), "{kernel:?}");
        assert_eq!(gradient, theta.zeros_like(), "{kernel:?}");
    }
}

#[test]
fn an_engine_proves_itself_once_for_each_way_to_run_its_blocks() {
    let recipe = recipe(MACHINES[0].1);
    let (theta, launcher) = (theta(&recipe), Rc::new(launcher(Kernel::Pack, |buffers| buffers)));
    let mut engine = engine(&recipe, launcher.clone());
    let mut launches = |sequences: usize| {
        let before = launcher.launches.get();
        engine.forward(&theta, &batch(&recipe, &vec![2; sequences], 7)).unwrap();
        launcher.launches.get() - before
    };
    let (of_a_forward, of_a_proof) = (3, 2 * (4 + 3));
    assert_eq!(launches(1), of_a_proof + of_a_forward);
    assert_eq!([launches(1), launches(4)], [of_a_forward; 2], "as many sequences a block");
    assert_eq!(launches(5), of_a_proof + of_a_forward, "two sequences a block");
    assert_eq!([launches(9), launches(2)], [of_a_forward; 2]);
}
