//! A checkpoint is refused with an error, or is the same again after it has been saved; once more with the checksums of
//! its texts put right, past which random changes would not get.
#![no_main]

#[path = "../../tests/common/resealed.rs"]
mod resealed;

use libfuzzer_sys::fuzz_target;
use ntm::checkpoint::Checkpoint;
use resealed::resealed;

fn read(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::parse(data) {
        checkpoint.finished();
        checkpoint.progress.expected(&checkpoint.recipe);
        assert_eq!(checkpoint.theta.len(), checkpoint.recipe.layout().size());
        assert!(checkpoint.theta.len() * 4 <= data.len(), "no more weights than the file has bytes for");
        let saved = checkpoint.to_bytes().expect("it is saved in memory");
        assert!(Checkpoint::parse(&saved).expect("it was valid") == checkpoint);
    }
}

/// The file with its texts' checksums right.
fn whole(data: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = data.split_first_chunk()?;
    let (header, tensors) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
    let header = resealed(header)?;
    Some([&(header.len() as u64).to_le_bytes()[..], &header, tensors].concat())
}

fuzz_target!(|data: &[u8]| {
    read(data);
    if let Some(data) = whole(data) {
        read(&data);
    }
});
