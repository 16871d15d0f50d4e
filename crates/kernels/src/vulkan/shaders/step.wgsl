fn rotated(x: u32, by: u32) -> u32 {
    return (x << by) | (x >> (32u - by));
}

fn seen_pair(seen: vec2<u32>, x: u32, y: u32) -> vec2<u32> {
    let a = rotated(seen.x, 5u) ^ (x + seen.y);
    let b = rotated(seen.y, 13u) ^ (y + a);
    return vec2<u32>(a, b);
}

fn seen_four(seen: vec2<u32>, words: vec4<u32>) -> vec2<u32> {
    return seen_pair(seen_pair(seen, words.x, words.y), words.z, words.w);
}

// The high half of the product of two words.
fn scaled(x: u32, y: u32) -> u32 {
    let low = (x & 0xffffu) * (y & 0xffffu);
    let left = (x >> 16u) * (y & 0xffffu);
    let right = (x & 0xffffu) * (y >> 16u);
    let middle = (low >> 16u) + (left & 0xffffu) + (right & 0xffffu);
    return (x >> 16u) * (y >> 16u) + (left >> 16u) + (right >> 16u) + (middle >> 16u);
}

@compute @workgroup_size(64)
fn walk_on(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.walkers {
        return;
    }
    var walk = walks[id.x];
    var seen = walk.yz;
    for (var number = 0u; number < p.steps; number++) {
        let x = unit(walk.x);
        seen = seen_four(seen_four(seen_four(seen_four(seen, x.a), x.b), x.c), x.d);
        walk.x = scaled(seen.x ^ rotated(seen.y, 16u), p.units);
    }
    walks[id.x] = vec4<u32>(walk.x, seen, 0u);
}
