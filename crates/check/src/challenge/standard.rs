//! What a challenge asks of a device: checkers ask for it, and hosts do no more.

use welkin_types::Resources;

use super::matrix::Shape;
use super::residency::Session;

/// Rows opened in all: of work with 1 wrong row in 20, one in a million passes.
const ROWS: u32 = 271;
/// The work of a container without GPUs, and of a GPU: rows and columns, rounds.
const CPU_WORK: (u32, u32) = (512, 2);
const GPU_WORK: (u32, u32) = (8_192, 16);

/// The memory of a container's smallest device, in bytes: of a GPU, or of the machine.
pub fn device_bytes(resources: &Resources) -> u64 {
    let least = resources.gpus.iter().map(|gpu| gpu.vram_bytes).min();
    least.unwrap_or(resources.memory_bytes)
}

/// The products that each device of a container computes; none where it has no memory for any.
///
/// ```
/// use welkin_check::challenge::{opened_rows, standard_work};
/// use welkin_types::Resources;
/// let resources =
///     Resources { cpu_milli: 1_000, memory_bytes: 1 << 30, disk_bytes: 0, gpus: Vec::new() };
/// let work = standard_work(&resources).unwrap();
/// assert_eq!((work.n(), work.rounds(), opened_rows(work)), (512, 2, 136));
/// ```
pub fn standard_work(resources: &Resources) -> Option<Shape> {
    let (n, rounds) = if resources.gpus.is_empty() { CPU_WORK } else { GPU_WORK };
    Shape::new(n.min(Shape::n_for_bytes(device_bytes(resources) / 2)), rounds)
}

/// The rows of each round that are opened.
pub const fn opened_rows(work: Shape) -> u32 {
    ROWS.div_ceil(work.rounds())
}

/// How the memory of each device of a container is looked at.
pub fn standard_look(resources: &Resources) -> Session {
    let bytes = device_bytes(resources);
    if resources.gpus.is_empty() {
        Session::for_processor(resources.cpu_milli.div_ceil(1_000), bytes)
    } else {
        Session::for_gpu(bytes)
    }
}
