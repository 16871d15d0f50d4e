// 64 x 64 entries of the product by 256 invocations, 16 each, over tiles of 64 entries of the sum.

@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<u32>;
@group(0) @binding(3) var<storage, read_write> product: array<i32>;

var<workgroup> tile_a: array<u32, 1024>;
var<workgroup> tile_b: array<u32, 1024>;

@compute @workgroup_size(16, 16)
fn multiply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) own: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let row = 64u * group.y;
    let column = 64u * (p.tile + group.x);
    var s0 = vec4<i32>(0);
    var s1 = vec4<i32>(0);
    var s2 = vec4<i32>(0);
    var s3 = vec4<i32>(0);
    for (var start = 0u; start < p.words; start += 16u) {
        for (var part = 0u; part < 4u; part++) {
            let at = index + 256u * part;
            tile_a[(at % 16u) * 64u + at / 16u] = a[(row + at / 16u) * p.words + start + at % 16u];
            tile_b[at] = b[(start + at / 64u) * p.width + column + at % 64u];
        }
        workgroupBarrier();
        for (var k = 0u; k < 1024u; k += 64u) {
            let at = k + 4u * own.y;
            let a0 = tile_a[at];
            let a1 = tile_a[at + 1u];
            let a2 = tile_a[at + 2u];
            let a3 = tile_a[at + 3u];
            let b0 = tile_b[k + own.x];
            let b1 = tile_b[k + own.x + 16u];
            let b2 = tile_b[k + own.x + 32u];
            let b3 = tile_b[k + own.x + 48u];
            s0 += vec4<i32>(
                dot4I8Packed(a0, b0), dot4I8Packed(a0, b1),
                dot4I8Packed(a0, b2), dot4I8Packed(a0, b3));
            s1 += vec4<i32>(
                dot4I8Packed(a1, b0), dot4I8Packed(a1, b1),
                dot4I8Packed(a1, b2), dot4I8Packed(a1, b3));
            s2 += vec4<i32>(
                dot4I8Packed(a2, b0), dot4I8Packed(a2, b1),
                dot4I8Packed(a2, b2), dot4I8Packed(a2, b3));
            s3 += vec4<i32>(
                dot4I8Packed(a3, b0), dot4I8Packed(a3, b1),
                dot4I8Packed(a3, b2), dot4I8Packed(a3, b3));
        }
        workgroupBarrier();
    }
    let stride = 4u * p.words;
    var to = (row + 4u * own.y) * stride + p.column + column + own.x;
    put(to, s0);
    to += stride;
    put(to, s1);
    to += stride;
    put(to, s2);
    to += stride;
    put(to, s3);
}

fn put(to: u32, sums: vec4<i32>) {
    product[to] = sums.x;
    product[to + 16u] = sums.y;
    product[to + 32u] = sums.z;
    product[to + 48u] = sums.w;
}
