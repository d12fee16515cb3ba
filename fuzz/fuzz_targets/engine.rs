//! The fused engine over machines of any size, at every instruction level: under AddressSanitizer its unsafe code reads
//! and writes nothing outside its buffers, and logits and gradient are finite. Several updates, since buffers are kept,
//! and threads share a single sequence from the fifth on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntm::config::Recipe;
use ntm::fused::Fused;
use ntm::simd::Level;
use ntm::tasks::Source;

fuzz_target!(|sizes: [u8; 16]| {
    let size = |index: usize, most: usize| 1 + sizes[index] as usize % most;
    let controller = ["lstm", "feedforward"][size(0, 2) - 1];
    let (memory, weighting) = (["constant", "learned"][size(1, 2) - 1], ["learned", "uniform"][size(2, 2) - 1]);
    let text = format!(
        r#"{{"task": {{"width": {}, "max_length": {}}}, "training": {{"batch_size": {}}},
            "model": {{"memory": {{"rows": {}, "width": {}}}, "read_heads": {}, "write_heads": {}, "shift_range": {},
                "controller": {{"kind": "{controller}", "hidden": {}, "layers": {}}},
                "init": {{"memory": "{memory}", "weighting": "{weighting}"}}}}}}"#,
        size(3, 9),
        size(4, 12),
        size(5, 9),
        size(6, 70),
        size(7, 40),
        size(8, 3),
        size(9, 3),
        2 * size(10, 5) - 1,
        size(11, 140),
        size(12, 3),
    );
    let text = match size(15, 4) {
        1 => format!(r#"{{"model": {{"kind": "lstm", "hidden": {}, "layers": {}}}}}"#, size(11, 140), size(12, 3)),
        _ => text,
    };
    let recipe = Recipe::parse(&text, &[]).expect("all sizes are allowed");
    let theta = recipe.layout().initial_theta(1);
    let mut source = Source::open(&recipe.task).expect("it has no files");
    for level in Level::available() {
        let mut engine = Fused::<f32>::at_level(level, recipe.network(), size(13, 3)).expect("threads");
        for step in 0..if recipe.training.batch_size == 1 { 7 } else { 2 } {
            let mut batch = source.training_batch(1, step, recipe.training.batch_size, 1.0).expect("a batch");
            batch.blur = [0.0, 0.1][size(14, 2) - 1];
            let mut gradient = vec![f32::NAN; theta.len()];
            let logits = engine.logits_and_gradient(&theta, &batch, &mut gradient);
            assert!(logits.iter().chain(&gradient).all(|value| value.is_finite()), "{text}");
        }
    }
});
