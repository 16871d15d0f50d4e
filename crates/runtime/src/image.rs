//! Images: reading, checking and unpacking what a provider or buyer brings.
//!
//! Everything here is hostile until proven: digests are checked over what is really unpacked, paths
//! are resolved below the new root by the kernel, set-id bits and devices are dropped, and sizes are
//! bounded. An image is unpacked once, into a directory named after the digest of its configuration,
//! which itself names the digest of every layer.

mod source;
mod unpack;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Failure, FailureCode};
use crate::sys;
use crate::types::{Image, ImageConfig};
use source::Source;

/// Unpacked images, by digest.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// An image in the store.
#[derive(Clone, Debug)]
pub(crate) struct Imported {
    /// Its root directory.
    pub(crate) root: PathBuf,
    /// What it says.
    pub(crate) config: ImageConfig,
}

impl Store {
    /// Opens the store and forgets half-unpacked images. Only root may look inside, because images
    /// hold files of arbitrary owners.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)?;
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Unpacks an image, unless it is here already. What is read is what `owner` may read.
    pub(crate) fn import(&self, image: &Image, owner: u32) -> Result<Imported, Failure> {
        let mut source = Source::open(image, owner)?;
        let (bytes, layers) = source.manifest()?;
        let digest = Digest::of(&bytes);
        let config = parse_config(&bytes, &digest)?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != layers.len() || diff_ids.len() > LAYERS_MAX {
            return Err(bad("the number of layers does not match"));
        }
        let target = self.dir.join(&digest.0);
        let imported = Imported { root: target.join("rootfs"), config: config.public };
        let _lock = self.lock().map_err(|error| Failure::host("lock the image store", error))?;
        if target.join(COMPLETE).exists() {
            return Ok(imported);
        }
        let partial = self.dir.join(format!("{PARTIAL}{}", digest.0));
        let result = self.unpack(&mut source, &layers, &diff_ids, &partial).and_then(|()| {
            fs::write(partial.join(COMPLETE), b"")
                .and_then(|()| fs::rename(&partial, &target))
                .map_err(|error| Failure::host("keep the image", error))
        });
        if result.is_err() {
            let _ = fs::remove_dir_all(&partial);
        }
        result.map(|()| imported)
    }

    fn unpack(
        &self,
        source: &mut Source,
        layers: &[source::Layer],
        diff_ids: &[Digest],
        partial: &Path,
    ) -> Result<(), Failure> {
        let _ = fs::remove_dir_all(partial);
        let root = partial.join("rootfs");
        fs::DirBuilder::new()
            .mode(0o755)
            .recursive(true)
            .create(&root)
            .map_err(|error| Failure::host("make the image directory", error))?;
        let mut unpacker = unpack::Unpacker::new(&root)?;
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            unpacker.layer(source.layer(layer)?, diff_id, layer.digest.as_ref())?;
        }
        Ok(())
    }

    fn lock(&self) -> io::Result<File> {
        let file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(self.dir.join("lock"))?;
        file.lock()?;
        Ok(file)
    }
}

/// A SHA-256 digest, as 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest(String);

impl Digest {
    fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }

    fn from_hash(hash: Sha256) -> Self {
        Self(hex::encode(hash.finalize()))
    }

    /// Reads `sha256:` and 64 hex digits.
    fn parse(text: &str) -> Result<Self, Failure> {
        text.strip_prefix("sha256:")
            .and_then(Self::from_hex)
            .ok_or_else(|| bad("a digest is not a sha256"))
    }

    fn from_hex(text: &str) -> Option<Self> {
        let is_digest = text.len() == 64
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_digest.then(|| Self(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).map_err(|failure| failure.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text).map_err(serde::de::Error::custom)
    }
}

/// Opens `path` with the rights of `owner`, so that the helper lends nobody its own.
pub(crate) fn open_as(owner: u32, path: &Path, extra: OFlags) -> Result<OwnedFd, Failure> {
    as_owner(owner, || {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | extra;
        let how = ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), how)
    })
    .map_err(|error| {
        Failure::new(FailureCode::Invalid, format!("cannot open {}: {error}", path.display()))
    })
}

/// Opens a plain file below `dir` with the rights of `owner`.
fn open_below(owner: u32, dir: &OwnedFd, path: &str) -> Result<File, Failure> {
    let file = as_owner(owner, || {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(dir.as_fd(), path, flags, Mode::empty(), how)
    })
    .map_err(|error| bad(format!("cannot open {path}: {error}")))?;
    plain_file(file)
}

fn plain_file(file: OwnedFd) -> Result<File, Failure> {
    let file = File::from(file);
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        _ => Err(bad("not a plain file")),
    }
}

/// Runs `body` with the file rights of `owner`. Only workers call this, which have no other thread.
fn as_owner<T>(owner: u32, body: impl FnOnce() -> T) -> T {
    if owner == 0 {
        return body();
    }
    // Groups are given up for good: a worker needs them for nothing else.
    let _ = sys::clear_groups();
    sys::set_fs_ids(owner, owner);
    let result = body();
    sys::set_fs_ids(0, 0);
    result
}

/// Reads at most `max` bytes.
fn read_bounded(reader: impl Read, max: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    reader
        .take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| bad(format!("cannot read the image: {error}")))?;
    if bytes.len() as u64 > max { Err(bad("a document is too long")) } else { Ok(bytes) }
}

#[derive(Debug)]
struct Config {
    public: ImageConfig,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

fn parse_config(bytes: &[u8], digest: &Digest) -> Result<Config, Failure> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        config: Option<Inner>,
        rootfs: RootFs,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inner {
        #[serde(default)]
        env: Option<Vec<String>>,
        #[serde(default)]
        entrypoint: Option<Vec<String>>,
        #[serde(default)]
        cmd: Option<Vec<String>>,
        #[serde(default)]
        working_dir: Option<String>,
    }
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| bad(format!("the configuration is malformed: {error}")))?;
    let inner = document.config.unwrap_or_default();
    let public = ImageConfig {
        env: inner.env.unwrap_or_default(),
        entrypoint: inner.entrypoint.unwrap_or_default(),
        cmd: inner.cmd.unwrap_or_default(),
        working_dir: inner.working_dir.unwrap_or_default(),
        digest: format!("sha256:{}", digest.0),
    };
    Ok(Config { public, rootfs: document.rootfs })
}

fn bad(text: impl Into<String>) -> Failure {
    Failure::new(FailureCode::BadImage, format!("bad image: {}", text.into()))
}

const PARTIAL: &str = "partial-";
const COMPLETE: &str = "complete";
const LAYERS_MAX: usize = 128;
const DOCUMENT_MAX: u64 = 4 << 20;
