// What a step of a product needs to know.

struct Params {
    key0: vec4<u32>,
    key1: vec4<u32>,
    // Rows and columns.
    n: u32,
    // Words of four entries in a row of A; a multiple of 16.
    words: u32,
    // The first column of the panel of B, and how many it has; multiples of 64.
    column: u32,
    width: u32,
    // Which rows of the product: so many from this place in the list.
    first: u32,
    rows: u32,
    // Columns from here on in the panel, in tiles of 64.
    tile: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
