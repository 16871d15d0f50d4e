//! Files on their way to a sandbox: bounded, on disk, gone when dropped.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::Path;

/// A file without a name.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Spool {
    /// Makes an empty spool in a folder. Its file has no name, so nothing is left over.
    pub(crate) fn new(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        std::fs::create_dir_all(folder)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { file: File::from(file), bytes: 0, bytes_max })
    }

    /// Appends; refuses what is too much.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            let text = format!("the files are larger than the {} bytes of disk", self.bytes_max);
            return Err(io::Error::other(text));
        }
        self.file.write_all(bytes)
    }

    /// The file, at its beginning.
    pub(crate) fn into_file(mut self) -> io::Result<File> {
        self.file.rewind()?;
        Ok(self.file)
    }
}
