//! Products: B whole, in panels of columns; A and the product in blocks of rows.

use welkin_check::challenge::{Seeds, Shape};
use wgpu::BufferUsages as Use;

use super::gpu::{Board, bytes_of, words_of};
use crate::{KernelError, Stop};

/// The most bytes of a panel of B.
const PANEL_BYTES_MAX: u64 = 1 << 30;
/// The most bytes of a block of the product.
const BLOCK_BYTES_MAX: u64 = 64 << 20;
/// Multiply-adds of a step: some milliseconds on a GPU, a second on the slowest and on processors.
const STEP_MACS: u64 = 1 << 36;
const STEP_MACS_SOFTWARE: u64 = 1 << 30;
/// Columns and rows of a tile.
const TILE: u32 = 64;

/// How a shape is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    n: u32,
    /// Words of a row of A.
    words: u32,
    /// Columns of a panel of B.
    width: u32,
    /// Rows of a block.
    rows: u32,
    /// Tiles of columns in a step.
    tiles: u32,
}

impl Cut {
    fn new(board: &Board, shape: Shape) -> Self {
        let n = shape.n();
        let words = n.div_ceil(TILE) * (TILE / 4);
        let whole = 4 * words;
        let most = board.buffer_max().min(PANEL_BYTES_MAX);
        let width = part(most, 4 * u64::from(words), whole);
        let rows = part(board.buffer_max().min(BLOCK_BYTES_MAX), 4 * u64::from(whole), whole);
        let macs = if board.is_software { STEP_MACS_SOFTWARE } else { STEP_MACS };
        let columns = part(macs, u64::from(rows) * u64::from(n), width);
        Self { n, words, width, rows, tiles: columns / TILE }
    }

    const fn whole(self) -> u32 {
        4 * self.words
    }
}

/// How many, in tiles and at least one, of so much each fit.
fn part(most: u64, each: u64, all: u32) -> u32 {
    let fit = u32::try_from(most / each.max(1)).unwrap_or(u32::MAX);
    (fit / TILE * TILE).clamp(TILE, all)
}

/// The buffers of products of one size.
#[derive(Debug)]
pub(super) struct Product {
    cut: Cut,
    params: wgpu::Buffer,
    numbers: wgpu::Buffer,
    a: wgpu::Buffer,
    /// The seed of the B that the panels hold.
    b: Option<[u8; 32]>,
    /// Panels of B by their first column.
    panels: Vec<(u32, u32, wgpu::Buffer)>,
    block: wgpu::Buffer,
    hashes: wgpu::Buffer,
    staging: wgpu::Buffer,
}

impl Product {
    /// What the buffers of a shape take.
    pub(super) fn bytes(board: &Board, shape: Shape) -> u64 {
        let cut = Cut::new(board, shape);
        let [words, whole, rows] = [cut.words, cut.whole(), cut.rows].map(u64::from);
        4 * words * whole + 4 * rows * words + 2 * 4 * rows * whole + 36 * whole
    }

    pub(super) fn new(board: &Board, shape: Shape) -> Result<Self, KernelError> {
        let cut = Cut::new(board, shape);
        let [words, whole, rows] = [cut.words, cut.whole(), cut.rows].map(u64::from);
        let (on_device, written) = (Use::STORAGE | Use::COPY_SRC, Use::STORAGE | Use::COPY_DST);
        let mut panels = Vec::new();
        for column in (0..cut.whole()).step_by(usize::try_from(cut.width).unwrap_or(usize::MAX)) {
            let width = cut.width.min(cut.whole() - column);
            let buffer = board.buffer(4 * words * u64::from(width), Use::STORAGE);
            panels.push((column, width, buffer));
            board.healthy(Self::bytes(board, shape))?;
        }
        let made = Self {
            cut,
            params: board.buffer(64, Use::UNIFORM | Use::COPY_DST),
            numbers: board.buffer(4 * whole, written),
            a: board.buffer(4 * rows * words, Use::STORAGE),
            b: None,
            panels,
            block: board.buffer(4 * rows * whole, on_device),
            hashes: board.buffer(32 * whole, on_device),
            staging: board
                .buffer((4 * rows * whole).max(32 * whole), Use::MAP_READ | Use::COPY_DST),
        };
        board.healthy(Self::bytes(board, shape))?;
        Ok(made)
    }

    pub(super) const fn n(&self) -> u32 {
        self.cut.n
    }

    /// The hashes of all rows.
    pub(super) fn leaves(
        &mut self,
        board: &Board,
        seeds: &Seeds,
        stop: &Stop,
    ) -> Result<Vec<[u8; 32]>, KernelError> {
        let numbers: Vec<u32> = (0..self.cut.n).collect();
        self.begin(board, seeds, &numbers)?;
        let mut first = 0;
        while first < self.cut.n {
            let rows = self.cut.rows.min(self.cut.n - first);
            self.block(board, seeds.a(), (first, rows), stop)?;
            self.tell(board, seeds.a(), (first, rows), (0, 0), 0);
            let bound = [&self.params, &self.numbers, &self.block, &self.hashes];
            board.run(&board.leaves, &bound, [rows.div_ceil(64), 1])?;
            first += rows;
        }
        let words = board.read(&self.hashes, &self.staging, 32 * u64::from(self.cut.n))?;
        Ok(words.chunks_exact(8).map(hash_of).collect())
    }

    /// Some rows.
    pub(super) fn rows(
        &mut self,
        board: &Board,
        seeds: &Seeds,
        numbers: &[u32],
        stop: &Stop,
    ) -> Result<Vec<i32>, KernelError> {
        let place = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let (n, whole) = (place(self.cut.n), place(self.cut.whole()));
        let mut entries = Vec::new();
        for some in numbers.chunks(place(self.cut.rows)) {
            self.begin(board, seeds, some)?;
            let rows = u32::try_from(some.len()).unwrap_or(u32::MAX);
            self.block(board, seeds.a(), (0, rows), stop)?;
            let bytes = 4 * u64::from(rows) * u64::from(self.cut.whole());
            let words = board.read(&self.block, &self.staging, bytes)?;
            for row in words.chunks_exact(whole) {
                entries.extend(row[..n].iter().map(|word| word.cast_signed()));
            }
        }
        Ok(entries)
    }

    /// B, where it is another one than last time, and which rows are wanted.
    fn begin(&mut self, board: &Board, seeds: &Seeds, numbers: &[u32]) -> Result<(), KernelError> {
        board.queue.write_buffer(&self.numbers, 0, &bytes_of(numbers));
        if self.b.as_ref() == Some(seeds.b()) {
            return Ok(());
        }
        self.b = None;
        for (column, width, panel) in &self.panels {
            self.tell(board, seeds.b(), (0, 0), (*column, *width), 0);
            let groups = [(width / TILE).div_ceil(8), self.cut.words.div_ceil(8)];
            board.run(&board.make_b, &[&self.params, panel], groups)?;
        }
        self.b = Some(*seeds.b());
        Ok(())
    }

    /// One block of rows from the list.
    fn block(
        &self,
        board: &Board,
        seed: &[u8; 32],
        rows: (u32, u32),
        stop: &Stop,
    ) -> Result<(), KernelError> {
        stop.check()?;
        self.tell(board, seed, rows, (0, 0), 0);
        let groups = [(self.cut.words / 16).div_ceil(8), rows.1.div_ceil(8)];
        board.run(&board.make_a, &[&self.params, &self.a, &self.numbers], groups)?;
        for (column, width, panel) in &self.panels {
            let tiles = width / TILE;
            let mut tile = 0;
            while tile < tiles {
                stop.check()?;
                let some = self.cut.tiles.min(tiles - tile);
                self.tell(board, seed, rows, (*column, *width), tile);
                let bound = [&self.params, &self.a, panel, &self.block];
                board.run(&board.multiply, &bound, [some, rows.1.div_ceil(TILE)])?;
                tile += some;
            }
        }
        Ok(())
    }

    fn tell(
        &self,
        board: &Board,
        seed: &[u8; 32],
        (first, rows): (u32, u32),
        (column, width): (u32, u32),
        tile: u32,
    ) {
        let mut words = words_of(seed);
        words.extend([self.cut.n, self.cut.words, column, width, first, rows, tile, 0]);
        board.queue.write_buffer(&self.params, 0, &bytes_of(&words));
    }
}

fn hash_of(words: &[u32]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.chunks_exact_mut(4).zip(words).for_each(|(to, word)| {
        to.copy_from_slice(&word.to_le_bytes());
    });
    hash
}
