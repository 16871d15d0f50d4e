// A and B from the seed. Rows of A are words of four entries, zero beyond n; what B has there does
// not matter then. B is turned: a word holds the entries of four rows in one column, as a product
// of words needs them.

@group(0) @binding(1) var<storage, read_write> factor: array<u32>;
@group(0) @binding(2) var<storage, read> numbers: array<u32>;

const DOUBLE_ROUNDS = 4u;

fn kept(word: u32, place: u32) -> u32 {
    let start = 4u * place;
    if start + 4u <= p.n {
        return word;
    }
    if start >= p.n {
        return 0u;
    }
    return word & ((1u << (8u * (p.n - start))) - 1u);
}

fn put_a(base: u32, place: u32, words: vec4<u32>) {
    factor[base + place] = kept(words.x, place);
    factor[base + place + 1u] = kept(words.y, place + 1u);
    factor[base + place + 2u] = kept(words.z, place + 2u);
    factor[base + place + 3u] = kept(words.w, place + 3u);
}

// x: blocks of a row, y: rows.
@compute @workgroup_size(8, 8)
fn make_a(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.words / 16u || id.y >= p.rows {
        return;
    }
    let tail = vec4<u32>(id.x, 0u, 0u, numbers[p.first + id.y]);
    let x = chacha(p.key0, p.key1, tail, DOUBLE_ROUNDS);
    let base = id.y * p.words;
    put_a(base, 16u * id.x, x.a);
    put_a(base, 16u * id.x + 4u, x.b);
    put_a(base, 16u * id.x + 8u, x.c);
    put_a(base, 16u * id.x + 12u, x.d);
}

fn put_b(base: u32, r0: vec4<u32>, r1: vec4<u32>, r2: vec4<u32>, r3: vec4<u32>) {
    let low = vec4<u32>(0xffu);
    for (var column = 0u; column < 4u; column++) {
        let by = vec4<u32>(8u * column);
        let words = ((r0 >> by) & low)
            | (((r1 >> by) & low) << vec4<u32>(8u))
            | (((r2 >> by) & low) << vec4<u32>(16u))
            | (((r3 >> by) & low) << vec4<u32>(24u));
        factor[base + column] = words.x;
        factor[base + column + 4u] = words.y;
        factor[base + column + 8u] = words.z;
        factor[base + column + 12u] = words.w;
    }
}

// x: blocks of 64 columns, y: groups of four rows.
@compute @workgroup_size(8, 8)
fn make_b(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.width / 64u || id.y >= p.words {
        return;
    }
    let number = p.column / 64u + id.x;
    let row = 4u * id.y;
    let x0 = chacha(p.key0, p.key1, vec4<u32>(number, 0u, 1u, row), DOUBLE_ROUNDS);
    let x1 = chacha(p.key0, p.key1, vec4<u32>(number, 0u, 1u, row + 1u), DOUBLE_ROUNDS);
    let x2 = chacha(p.key0, p.key1, vec4<u32>(number, 0u, 1u, row + 2u), DOUBLE_ROUNDS);
    let x3 = chacha(p.key0, p.key1, vec4<u32>(number, 0u, 1u, row + 3u), DOUBLE_ROUNDS);
    let base = id.y * p.width + 64u * id.x;
    put_b(base, x0.a, x1.a, x2.a, x3.a);
    put_b(base + 16u, x0.b, x1.b, x2.b, x3.b);
    put_b(base + 32u, x0.c, x1.c, x2.c, x3.c);
    put_b(base + 48u, x0.d, x1.d, x2.d, x3.d);
}
