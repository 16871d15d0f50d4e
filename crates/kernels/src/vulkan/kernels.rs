//! The text of the kernels. Two are written here because they are the same lines many times over:
//! SHA-256, whose tables and registers must not be indexed at run time, and reading from as many
//! buffers as memory takes.

use std::fmt::Write as _;

const CHACHA: &str = include_str!("shaders/chacha.wgsl");
const PARAMS: &str = include_str!("shaders/params.wgsl");
const FACTORS: &str = include_str!("shaders/factors.wgsl");
const MULTIPLY: &str = include_str!("shaders/multiply.wgsl");
const WALK: &str = include_str!("shaders/walk.wgsl");
const FILL: &str = include_str!("shaders/fill.wgsl");
const STEP: &str = include_str!("shaders/step.wgsl");

/// Entry points `make_a` and `make_b`.
pub(super) fn factors() -> String {
    [CHACHA, PARAMS, FACTORS].concat()
}

/// Entry point `multiply`.
pub(super) fn multiply() -> String {
    [PARAMS, MULTIPLY].concat()
}

/// Entry point `fill`.
pub(super) fn fill() -> String {
    [CHACHA, WALK, FILL].concat()
}

/// Entry point `walk_on`, reading from so many buffers, which are bound from 2 on.
pub(super) fn step(buffers: usize) -> String {
    let mut text = [CHACHA, WALK].concat();
    text.push_str("@group(0) @binding(1) var<storage, read_write> walks: array<vec4<u32>>;\n");
    for number in 0..buffers {
        let binding = number + 2;
        let _ = writeln!(
            text,
            "@group(0) @binding({binding}) var<storage, read> m{number}: array<vec4<u32>>;"
        );
    }
    text.push_str("fn unit(place: u32) -> Block {\n let at = 4u * (place % p.held);\n");
    text.push_str(" switch place / p.held {\n");
    let block = |number: usize| {
        let words = ["", " + 1u", " + 2u", " + 3u"].map(|word| format!("m{number}[at{word}]"));
        format!("return Block({});", words.join(", "))
    };
    for number in 1..buffers {
        let _ = writeln!(text, "  case {number}u: {{ {} }}", block(number));
    }
    let _ = writeln!(text, "  default: {{ }}\n }}\n {}\n}}", block(0));
    text.push_str(STEP);
    text
}

/// Entry point `leaves`: SHA-256 of each row as a Merkle leaf, one invocation a row.
///
/// The message is 0x00, the row's number and its entries, so that a word of it is the end of one
/// entry and the beginning of the next.
pub(super) fn leaves() -> String {
    let mut text = PARAMS.to_owned();
    text.push_str(LEAVES);
    text.push_str("fn compress(h: State, w: Words) -> State {\n");
    for (number, name) in NAMES.iter().enumerate() {
        let _ = writeln!(text, " var {name} = h.h{number};");
    }
    for number in 0..16 {
        let _ = writeln!(text, " var w{number} = w.w{number};");
    }
    text.push_str(" var t = 0u;\n");
    for (round, constant) in K.iter().enumerate() {
        let at = |offset: usize| format!("w{}", (round + offset) % 16);
        let w = at(0);
        if round >= 16 {
            let (near, middle, far) = (at(1), at(9), at(14));
            let _ = writeln!(text, " {w} += low({near}) + {middle} + high({far});");
        }
        // The names turn instead of the values.
        let name = |place: usize| NAMES[(place + 64 - round) % 8];
        let [a, b, c, d] = [0, 1, 2, 3].map(name);
        let [e, f, g, h] = [4, 5, 6, 7].map(name);
        let _ = writeln!(
            text,
            " t = {h} + big1({e}) + (({e} & {f}) ^ (~{e} & {g})) + {constant}u + {w};\n {d} += t;\n \
             {h} = t + big0({a}) + (({a} & {b}) ^ ({a} & {c}) ^ ({b} & {c}));"
        );
    }
    let sums: Vec<_> =
        NAMES.iter().enumerate().map(|(n, name)| format!("h.h{n} + {name}")).collect();
    let _ = writeln!(text, " return State({});\n}}", sums.join(", "));
    text.push_str(&main_of_leaves());
    text
}

fn main_of_leaves() -> String {
    let mut text = String::from(
        "@compute @workgroup_size(64)\n\
         fn leaves(@builtin(global_invocation_id) id: vec3<u32>) {\n\
         \x20if id.x >= p.rows { return; }\n\
         \x20let number = numbers[p.first + id.x];\n\
         \x20let base = id.x * 4u * p.words;\n\
         \x20let blocks = (4u * p.n + 77u) / 64u;\n\
         \x20var last = number;\n var next = 0u;\n var w: Words;\n",
    );
    let initial: Vec<_> = INITIAL.iter().map(|word| format!("{word}u")).collect();
    let _ = writeln!(text, " var h = State({});", initial.join(", "));
    text.push_str(" for (var block = 0u; block < blocks; block++) {\n");
    for place in 0..16 {
        // Word t holds the last byte of item t - 2 and three of item t - 1.
        let _ = writeln!(
            text,
            "  next = item(base, 16u * block + {place}u);\n  \
             w.w{place} = (last << 24u) | (next >> 8u);\n  last = next;"
        );
        if place == 0 {
            text.push_str("  if block == 0u { w.w0 = number >> 8u; last = number; }\n");
        }
    }
    text.push_str("  if block + 1u == blocks { w.w14 = 0u; w.w15 = 8u * (4u * p.n + 5u); }\n");
    text.push_str("  h = compress(h, w);\n }\n let to = 8u * (p.first + id.x);\n");
    for place in 0..8 {
        let _ = writeln!(text, " hashes[to + {place}u] = swapped(h.h{place});");
    }
    text.push_str("}\n");
    text
}

const LEAVES: &str = "
@group(0) @binding(1) var<storage, read> numbers: array<u32>;
@group(0) @binding(2) var<storage, read> product: array<u32>;
@group(0) @binding(3) var<storage, read_write> hashes: array<u32>;

struct State { h0: u32, h1: u32, h2: u32, h3: u32, h4: u32, h5: u32, h6: u32, h7: u32 }
struct Words {
    w0: u32, w1: u32, w2: u32, w3: u32, w4: u32, w5: u32, w6: u32, w7: u32,
    w8: u32, w9: u32, w10: u32, w11: u32, w12: u32, w13: u32, w14: u32, w15: u32,
}

fn right(x: u32, by: u32) -> u32 { return (x >> by) | (x << (32u - by)); }
fn big0(x: u32) -> u32 { return right(x, 2u) ^ right(x, 13u) ^ right(x, 22u); }
fn big1(x: u32) -> u32 { return right(x, 6u) ^ right(x, 11u) ^ right(x, 25u); }
fn low(x: u32) -> u32 { return right(x, 7u) ^ right(x, 18u) ^ (x >> 3u); }
fn high(x: u32) -> u32 { return right(x, 17u) ^ right(x, 19u) ^ (x >> 10u); }
fn swapped(x: u32) -> u32 {
    return (x << 24u) | ((x & 0xff00u) << 8u) | ((x >> 8u) & 0xff00u) | (x >> 24u);
}

// Items from 1 on are the entries, then the end of the message and nothing.
fn item(base: u32, place: u32) -> u32 {
    if place == 0u { return 0u; }
    if place <= p.n { return swapped(product[base + place - 1u]); }
    return select(0u, 0x80000000u, place == p.n + 1u);
}
";

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h_"];

const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// FIPS 180-4, 4.2.2.
const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];
