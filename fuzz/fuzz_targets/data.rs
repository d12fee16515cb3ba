//! A data file is refused with an error, or sequences in it make a batch of finite numbers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntm::tasks::{Sequences, Source, Task};

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("ntm-fuzz-{}.jsonl", std::process::id()));
    std::fs::write(&path, data).expect("the temporary directory can be written");
    let path = path.display().to_string();
    for loss in ["cross-entropy", "squared"] {
        let loss = serde_json::from_value(loss.into()).expect("a loss");
        let task = Task::Sequences(Sequences { train: path.clone(), eval: path.clone(), loss, ..Sequences::default() });
        let Ok(mut source) = Source::open(&task) else { continue };
        let count = source.evaluation_count(0);
        let batch = source.training_batch(1, 0, count.min(8), 1.0).expect("every line was checked");
        assert!(batch.inputs.iter().chain(&batch.targets).all(|value| value.is_finite()));
    }
});
