// Memory filled with units of 64 bytes, and walks through it. `unit` is written beside this for as
// many buffers as there are.

struct Walks {
    key0: vec4<u32>,
    key1: vec4<u32>,
    units: u32,
    double_rounds: u32,
    // Units of a buffer.
    held: u32,
    // Where the filling goes on: the unit's number, its place in the buffer, and how many.
    first: u32,
    place: u32,
    count: u32,
    walkers: u32,
    steps: u32,
}

@group(0) @binding(0) var<uniform> p: Walks;

const MARK = 0x77656c6bu;

fn linear(group: vec3<u32>, groups: vec3<u32>, own: u32) -> u32 {
    return (group.y * groups.x + group.x) * 64u + own;
}
