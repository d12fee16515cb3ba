//! The fused engine over machines of any size, at every instruction level: under AddressSanitizer its unsafe code reads and
//! writes nothing outside its buffers, and logits and gradient are finite. Two updates, since buffers are kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntm::config::Recipe;
use ntm::fused::Fused;
use ntm::simd::Level;
use ntm::tasks::Source;

fuzz_target!(|sizes: [u8; 14]| {
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
        size(11, 70),
        size(12, 3),
    );
    let recipe = Recipe::parse(&text, &[]).expect("all sizes are allowed");
    let (x, y) = (recipe.task.input_width(), recipe.task.output_width());
    let theta = recipe.layout().start(1);
    let mut source = Source::open(&recipe.task).expect("it has no files");
    for level in Level::available() {
        let mut engine = Fused::<f32>::at_level(level, &recipe.model, x, y, size(13, 3)).expect("threads");
        for step in 0..2 {
            let batch = source.training_batch(1, step, recipe.training.batch_size, 1.0).expect("a batch");
            let mut gradient = vec![f32::NAN; theta.len()];
            let logits = engine.logits_and_gradient(&theta, &batch, &mut gradient);
            assert!(logits.iter().chain(&gradient).all(|value| value.is_finite()), "{text}");
        }
    }
});
