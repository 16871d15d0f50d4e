//! What the commands do.

use crate::args::{Command, USAGE};
use crate::error::RunError;
use crate::progress::Progress;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use welkin_trace::{
    EXPECTED_HASH, Picture, RenderConfig, Scene, TILE_BYTES_MAX, Tile, TileImage, decode_tile,
    encode_tile, join, render_tile, tiles,
};

/// Does what was asked for.
pub(crate) fn run(command: Command) -> Result<(), RunError> {
    match command {
        Command::Help => write_stdout(USAGE.as_bytes()),
        Command::Tile { config, bands, band, threads } => {
            let all = tiles(&config, bands);
            let tile = *all.get(band as usize).ok_or(RunError::NoBand)?;
            let name = format!("tile {}/{bands}", band + 1);
            write_stdout(&encode_tile(&render(&config, tile, threads, name)))
        }
        Command::Picture { config, out, threads } => {
            let cores = || thread::available_parallelism().map_or(1, usize::from);
            let threads = threads.unwrap_or_else(cores);
            let image = render(&config, Tile::whole(&config), threads, "picture".to_owned());
            let picture = join(&config, &[image]).map_err(RunError::Join)?;
            write_picture(&config, &picture, &out)
        }
        Command::Join { out, tiles } => join_files(&tiles, &out),
    }
}

fn render(config: &RenderConfig, tile: Tile, threads: usize, name: String) -> TileImage {
    let mut progress = Progress::new(name);
    render_tile(&Scene::demo(), config, tile, threads, &mut |done, total| {
        if let Some(line) = progress.line(done, total) {
            // Nobody may be listening; the picture is what counts.
            let _ = writeln!(io::stderr(), "{line}");
        }
    })
}

fn join_files(paths: &[PathBuf], out: &Path) -> Result<(), RunError> {
    let mut images = Vec::new();
    for path in paths {
        let bytes =
            read_bounded(path).map_err(|source| RunError::Read { path: path.clone(), source })?;
        let image = decode_tile(&bytes)
            .map_err(|source| RunError::Decode { path: path.clone(), source })?;
        images.push(image);
    }
    let config = images.first().map(|image| image.config).ok_or(RunError::NoBand)?;
    let picture = join(&config, &images).map_err(RunError::Join)?;
    write_picture(&config, &picture, out)
}

/// Reads a file, but no more than shows that it is too long for a tile.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(TILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_picture(config: &RenderConfig, picture: &Picture, out: &Path) -> Result<(), RunError> {
    fs::write(out, picture.to_png())
        .map_err(|source| RunError::Write { path: out.to_owned(), source })?;
    let hash = picture.hash_hex();
    let verdict = match (*config == RenderConfig::DEMO, hash == EXPECTED_HASH) {
        (false, _) => "",
        (true, true) => " (the expected picture)",
        (true, false) => " (NOT the expected picture)",
    };
    write_stdout(format!("{hash}{verdict}\n").as_bytes())
}

fn write_stdout(bytes: &[u8]) -> Result<(), RunError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(RunError::Stdout)
}
