@group(0) @binding(1) var<storage, read_write> memory: array<vec4<u32>>;

@compute @workgroup_size(64)
fn fill(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) own: u32,
) {
    let at = linear(group, groups, own);
    if at >= p.count {
        return;
    }
    let x = chacha(p.key0, p.key1, vec4<u32>(p.first + at, 0u, MARK, 0u), p.double_rounds);
    let to = 4u * (p.place + at);
    memory[to] = x.a;
    memory[to + 1u] = x.b;
    memory[to + 2u] = x.c;
    memory[to + 3u] = x.d;
}
