//! Flat vectors that libtorch holds: f32 ones on the CPU as slices where they lie, and the way to a device.

use tch::{Device, Kind, TchError, Tensor};

fn on_cpu(vector: &Tensor) -> bool {
    vector.device() == Device::Cpu && vector.kind() == Kind::Float && vector.is_contiguous() && vector.numel() > 0
}

/// The values of a contiguous f32 tensor on the CPU, else none.
pub fn values(vector: &Tensor) -> Option<&[f32]> {
    // SAFETY: contiguous f32 storage of this many elements, alive as long as the tensor is borrowed.
    on_cpu(vector).then(|| unsafe { std::slice::from_raw_parts(vector.data_ptr().cast(), vector.numel()) })
}

/// As `values`, to write.
pub fn values_mut(vector: &mut Tensor) -> Option<&mut [f32]> {
    // SAFETY: as above; no other Tensor of ours shares this storage while this one is borrowed for writing.
    on_cpu(vector).then(|| unsafe { std::slice::from_raw_parts_mut(vector.data_ptr().cast(), vector.numel()) })
}

/// A vector on a device, from the host. To a card it goes through pinned memory, so that nobody waits for what the card
/// has to do before.
pub fn upload(host: &Tensor, (kind, device): (Kind, Device)) -> Result<Tensor, TchError> {
    match device {
        Device::Cuda(_) => host.f_internal_pin_memory(device)?.f_internal_to_copy((kind, device), true),
        _ => host.f_internal_to_copy((kind, device), false),
    }
}
