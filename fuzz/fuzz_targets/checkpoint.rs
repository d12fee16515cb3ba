//! A checkpoint is refused with an error, or is the same again after it has been saved.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntm::checkpoint::Checkpoint;

fuzz_target!(|data: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::parse(data) {
        checkpoint.finished();
        checkpoint.progress.expected(&checkpoint.recipe);
        assert_eq!(checkpoint.theta.len(), checkpoint.recipe.layout().size());
        assert!(checkpoint.theta.len() * 4 <= data.len(), "no more weights than the file has bytes for");
        let saved = checkpoint.to_bytes().expect("it is saved in memory");
        assert!(Checkpoint::parse(&saved).expect("it was valid") == checkpoint);
    }
});
