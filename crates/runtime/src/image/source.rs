//! Where the parts of an image are found: a directory in the OCI layout, or a `docker save` file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use serde::Deserialize;

use super::{DOCUMENT_MAX, Digest, bad, open_as, open_below, plain_file, read_bounded};
use crate::error::Failure;
use crate::types::Image;

/// An opened image.
#[derive(Debug)]
pub(super) enum Source {
    /// A directory with `index.json` and `blobs/`.
    Layout { dir: OwnedFd, owner: u32 },
    /// A tar file with `manifest.json`.
    DockerTar { file: File, members: BTreeMap<String, Member> },
}

/// Where a member of a tar file is.
#[derive(Clone, Debug)]
pub(super) enum Member {
    /// Its bytes.
    Data { offset: u64, size: u64 },
    /// Another member.
    Link(String),
}

/// One layer of an image.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// The path of its bytes.
    path: String,
    /// The digest of those bytes, where the image states it.
    pub(super) digest: Option<Digest>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: Digest,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Source {
    /// Opens an image with the rights of `owner`.
    pub(super) fn open(image: &Image, owner: u32) -> Result<Self, Failure> {
        match image {
            Image::HostDirs | Image::Rootfs(_) => Err(bad("nothing to import")),
            Image::OciLayout(path) => {
                Ok(Self::Layout { dir: open_as(owner, path, OFlags::DIRECTORY)?, owner })
            }
            Image::DockerTar(path) => {
                let file = plain_file(open_as(owner, path, OFlags::empty())?)?;
                let members = index(&file)?;
                Ok(Self::DockerTar { file, members })
            }
        }
    }

    /// The bytes of the configuration, checked, and the layers in order.
    pub(super) fn manifest(&mut self) -> Result<(Vec<u8>, Vec<Layer>), Failure> {
        match self {
            Self::Layout { .. } => self.oci_manifest(),
            Self::DockerTar { .. } => self.docker_manifest(),
        }
    }

    /// The bytes of a layer, as stored.
    pub(super) fn layer(&mut self, layer: &Layer) -> Result<Box<dyn Read>, Failure> {
        self.member(&layer.path)
    }

    fn oci_manifest(&mut self) -> Result<(Vec<u8>, Vec<Layer>), Failure> {
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<Descriptor>,
        }
        #[derive(Deserialize)]
        struct Manifest {
            config: Descriptor,
            layers: Vec<Descriptor>,
        }
        let mut bytes = self.document("index.json", None)?;
        // An index may point to an index per platform, once.
        for _ in 0..3 {
            if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
                let config = &manifest.config.digest;
                let config = self.document(&blob(config), Some(config))?;
                let layers = manifest
                    .layers
                    .into_iter()
                    .map(|layer| Layer { path: blob(&layer.digest), digest: Some(layer.digest) });
                return Ok((config, layers.collect()));
            }
            let index: Index = serde_json::from_slice(&bytes)
                .map_err(|error| bad(format!("the index is malformed: {error}")))?;
            let chosen =
                choose(&index.manifests).ok_or_else(|| bad("no manifest for this host"))?;
            bytes = self.document(&blob(&chosen.digest), Some(&chosen.digest))?;
        }
        Err(bad("the index nests too deep"))
    }

    fn docker_manifest(&mut self) -> Result<(Vec<u8>, Vec<Layer>), Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Manifest {
            config: String,
            layers: Vec<String>,
        }
        let bytes = self.document("manifest.json", None)?;
        let manifests: Vec<Manifest> = serde_json::from_slice(&bytes)
            .map_err(|error| bad(format!("the manifest is malformed: {error}")))?;
        let Some(manifest) = manifests.into_iter().next() else {
            return Err(bad("the manifest is empty"));
        };
        let digest = digest_in_name(&manifest.config);
        let config = self.document(&manifest.config, digest.as_ref())?;
        let layers = manifest
            .layers
            .into_iter()
            .map(|path| Layer { digest: digest_in_name(&path), path })
            .collect();
        Ok((config, layers))
    }

    /// Reads a small member and checks its digest.
    fn document(&mut self, path: &str, digest: Option<&Digest>) -> Result<Vec<u8>, Failure> {
        let bytes = read_bounded(self.member(path)?, DOCUMENT_MAX)?;
        if digest.is_some_and(|digest| *digest != Digest::of(&bytes)) {
            return Err(bad(format!("the digest of {path} does not match")));
        }
        Ok(bytes)
    }

    fn member(&mut self, path: &str) -> Result<Box<dyn Read>, Failure> {
        let fail = |error: io::Error| bad(format!("cannot read {path}: {error}"));
        match self {
            Self::Layout { dir, owner } => Ok(Box::new(open_below(*owner, dir, path)?)),
            Self::DockerTar { file, members } => {
                let mut name = path.to_owned();
                for _ in 0..4 {
                    match members.get(&name) {
                        Some(Member::Data { offset, size }) => {
                            let mut file = file.try_clone().map_err(fail)?;
                            file.seek(SeekFrom::Start(*offset)).map_err(fail)?;
                            return Ok(Box::new(file.take(*size)));
                        }
                        Some(Member::Link(target)) => name.clone_from(target),
                        None => break,
                    }
                }
                Err(bad(format!("{path} is missing")))
            }
        }
    }
}

/// Finds the members of a tar file.
fn index(file: &File) -> Result<BTreeMap<String, Member>, Failure> {
    let fail = |error: io::Error| bad(format!("cannot read the archive: {error}"));
    let mut archive = tar::Archive::new(file.try_clone().map_err(fail)?);
    let mut members = BTreeMap::new();
    for entry in archive.entries_with_seek().map_err(fail)?.take(MEMBERS_MAX) {
        let entry = entry.map_err(fail)?;
        let name = plain_name(&entry.path().map_err(fail)?.to_string_lossy());
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let (offset, size) = (entry.raw_file_position(), entry.size());
            members.insert(name, Member::Data { offset, size });
        } else if kind.is_symlink() || kind.is_hard_link() {
            let Some(target) = entry.link_name().map_err(fail)? else { continue };
            let target = target.to_string_lossy();
            // Older versions of docker link equal layers to each other: `../<id>/layer.tar`.
            let target = target.strip_prefix("../").unwrap_or(&target);
            members.insert(name, Member::Link(plain_name(target)));
        }
    }
    Ok(members)
}

fn plain_name(name: &str) -> String {
    name.trim_start_matches("./").to_owned()
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.0)
}

/// Names such as `<digest>.json` or `blobs/sha256/<digest>` promise a digest.
fn digest_in_name(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next()?;
    Digest::from_hex(last.strip_suffix(".json").unwrap_or(last))
}

fn choose(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits =
        |platform: &Platform| platform.os == "linux" && platform.architecture == architecture;
    manifests
        .iter()
        .find(|found| found.platform.as_ref().is_some_and(fits))
        .or_else(|| manifests.iter().find(|found| found.platform.is_none()))
}

const MEMBERS_MAX: usize = 4096;
