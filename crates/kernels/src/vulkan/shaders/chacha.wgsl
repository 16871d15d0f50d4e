// ChaCha's core, a row of its square in each vector.

struct Block { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }

fn turned(v: vec4<u32>, by: u32) -> vec4<u32> {
    return (v << vec4<u32>(by)) | (v >> vec4<u32>(32u - by));
}

fn quarters(x: Block) -> Block {
    var y = x;
    y.a += y.b;
    y.d = turned(y.d ^ y.a, 16u);
    y.c += y.d;
    y.b = turned(y.b ^ y.c, 12u);
    y.a += y.b;
    y.d = turned(y.d ^ y.a, 8u);
    y.c += y.d;
    y.b = turned(y.b ^ y.c, 7u);
    return y;
}

fn chacha(key0: vec4<u32>, key1: vec4<u32>, tail: vec4<u32>, double_rounds: u32) -> Block {
    let constants = vec4<u32>(0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u);
    var x = Block(constants, key0, key1, tail);
    for (var round = 0u; round < double_rounds; round++) {
        x = quarters(x);
        x.b = x.b.yzwx;
        x.c = x.c.zwxy;
        x.d = x.d.wxyz;
        x = quarters(x);
        x.b = x.b.wxyz;
        x.c = x.c.zwxy;
        x.d = x.d.yzwx;
    }
    return Block(x.a + constants, x.b + key0, x.c + key1, x.d + tail);
}
