//! `welkin cp`: files to and from a running lease, as `cp -r` would copy them.
//!
//! Both ways go through a tar stream in a nameless temporary file. What is fetched under a new name
//! is unpacked beside it and renamed, so that nobody sees half of it.

mod forward;

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use welkin_node::buyer::{
    Buyer, BuyerError, HostSession, KeptLease, free_bytes, pack, scratch, scratch_dir, unpack,
};
use welkin_node::outside;
use welkin_proto::lease::ExecOut;
use welkin_types::LeaseId;
use welkin_types::task::ByteSize;

use crate::client::{self, Client};
use crate::market::size;
use crate::{Context, Usage, cli, out};

pub(crate) use forward::forward;

/// How long the lease may take to say what a path is.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Copies files to or from a running lease.
pub(crate) async fn cp(context: &Context, args: &cli::Cp) -> anyhow::Result<()> {
    let way = Way::parse(&args.from, &args.to)?;
    let max: ByteSize = args.max_size.parse().map_err(|error| {
        Usage::new(format!("--max-size: {error}"), "write it like `500MB` or `64GiB`")
    })?;
    let bytes_max = max.bytes();
    let (Way::Fetch { lease, .. } | Way::Send { lease, .. }) = &way;
    let kept = client::find(&client::home(context), lease)?;
    let client = Client::open(context).await?;
    let copied = copy(&client.buyer, &kept, &way, bytes_max).await;
    client.close().await;
    let bytes = copied?;
    if context.is_json {
        return out::json(&serde_json::json!({ "lease": kept.lease, "bytes": bytes }));
    }
    if !context.is_quiet {
        out::note(&format!("copied {}", size(bytes)));
    }
    Ok(())
}

/// What is copied where.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// From the lease.
    Fetch {
        /// The lease, as it was named.
        lease: String,
        /// The path inside.
        from: String,
        /// The path here.
        to: PathBuf,
    },
    /// To the lease.
    Send {
        /// The path here.
        from: PathBuf,
        /// The lease, as it was named.
        lease: String,
        /// The path inside.
        to: String,
    },
}

impl Way {
    fn parse(from: &str, to: &str) -> Result<Self, Usage> {
        match (remote(from), remote(to)) {
            (Some((lease, path)), None) => {
                Ok(Self::Fetch { lease: lease.into(), from: path.into(), to: to.into() })
            }
            (None, Some((lease, path))) => {
                Ok(Self::Send { from: from.into(), lease: lease.into(), to: path.into() })
            }
            (Some(_), Some(_)) => Err(Usage::new(
                "both sides are in a lease",
                "copy to this machine first; a file here with `:` in its name is `./NAME`",
            )),
            (None, None) => Err(Usage::new(
                "neither side is in a lease",
                "write one side as LEASE:PATH, for example `welkin cp data.csv LEASE:/work/`",
            )),
        }
    }
}

/// A lease and a path, if the text has the form `LEASE:PATH`. What has a `/` before the colon is a
/// path here.
fn remote(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(lease, _)| !lease.is_empty() && !lease.contains('/'))
}

async fn copy(buyer: &Buyer, kept: &KeptLease, way: &Way, bytes_max: u64) -> anyhow::Result<u64> {
    let session = buyer.connect(&kept.host).await?;
    let bytes = match way {
        Way::Fetch { from, to, .. } => fetch(&session, kept.lease, (from, to), bytes_max).await,
        Way::Send { from, to, .. } => send(&session, kept.lease, from, to).await,
    };
    session.close();
    bytes
}

async fn fetch(
    session: &HostSession,
    lease: LeaseId,
    (from, to): (&str, &Path),
    bytes_max: u64,
) -> anyhow::Result<u64> {
    // A host that sends without end must not fill this machine's disk.
    let room = room(&scratch_dir())?;
    let mut stream = scratch()?;
    let mut sink = tokio::fs::File::from_std(stream.try_clone().context("failed to copy")?);
    let got = session.get(lease, from, bytes_max.min(room), &mut sink).await;
    got.map_err(|error| match error {
        BuyerError::TooLarge { .. } if room < bytes_max => {
            let text = format!("{} has room for {}", scratch_dir().display(), size(room));
            Usage::new(text, "make room there, or set TMPDIR to a folder with more").into()
        }
        BuyerError::TooLarge { .. } => {
            let text = format!("{from} is larger than {}", size(bytes_max));
            Usage::new(text, "allow more with --max-size").into()
        }
        other => anyhow::Error::from(other),
    })
    .with_context(|| format!("failed to read {from}"))?;
    stream.rewind().context("failed to read the copy")?;
    let bytes = content_bytes(&mut stream).context("failed to read the copy")?;
    stream.rewind().context("failed to read the copy")?;
    let folder = if to.is_dir() { to } else { parent(to) };
    let room = self::room(folder)?;
    if bytes > room {
        let text = format!("{} has room for {}", folder.display(), size(room));
        let hint = format!("{} are to be copied", size(bytes));
        return Err(Usage::new(text, hint).into());
    }
    if to.as_os_str().as_encoded_bytes().ends_with(b"/") {
        fs::create_dir_all(to).with_context(|| format!("failed to make {}", to.display()))?;
    }
    if to.is_dir() {
        unpack(stream, to)?;
    } else {
        place(stream, to)?;
    }
    Ok(bytes)
}

/// Bytes that may be written in a folder: a tenth of what is free stays.
fn room(folder: &Path) -> anyhow::Result<u64> {
    // A folder that is still to be made has no room of its own.
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    Ok(free_bytes(there)? / 10 * 9)
}

/// The folder of a path.
fn parent(path: &Path) -> &Path {
    let named = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    named.unwrap_or_else(|| Path::new("."))
}

/// Unpacks what was fetched and gives it a new name.
fn place(stream: File, to: &Path) -> anyhow::Result<()> {
    let failed = || format!("failed to write {}", to.display());
    let draft = parent(to).join(format!(".welkin-{:016x}", u64::from_le_bytes(outside::random())));
    fs::create_dir(&draft).with_context(failed)?;
    let placed = unpack(stream, &draft).map_err(anyhow::Error::from).and_then(|_| {
        let mut names: Vec<PathBuf> =
            fs::read_dir(&draft)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        match (names.pop(), names.is_empty()) {
            (Some(only), true) => fs::rename(only, to).with_context(failed),
            // The root of the lease has no name of its own.
            (Some(_), false) => fs::rename(&draft, to).with_context(failed),
            (None, _) => bail!("there is nothing to copy"),
        }
    });
    let _ = fs::remove_dir_all(&draft);
    placed
}

async fn send(session: &HostSession, lease: LeaseId, from: &Path, to: &str) -> anyhow::Result<u64> {
    let meta = fs::metadata(from).with_context(|| format!("failed to read {}", from.display()))?;
    let is_folder = to.is_empty() || to.ends_with('/') || is_folder(session, lease, to).await;
    let (folder, inside) = target(from, meta.is_dir(), to, is_folder)?;
    let mut stream = pack(&[(from.to_owned(), inside, true)])?;
    let bytes = content_bytes(&mut stream).context("failed to read the copy")?;
    stream.rewind().context("failed to read the copy")?;
    let mut source = tokio::fs::File::from_std(stream);
    session
        .put(lease, &folder, &mut source)
        .await
        .with_context(|| format!("failed to write {to}"))?;
    Ok(bytes)
}

/// Whether a path of the lease is a folder. Where the lease has no `test`, it is taken for none.
async fn is_folder(session: &HostSession, lease: LeaseId, path: &str) -> bool {
    let looking = async {
        let argv = ["test", "-d", path].map(str::to_owned).to_vec();
        let command = session.exec(lease, argv, Vec::new(), None).await.ok()?;
        let (_input, mut output) = command.split();
        loop {
            match output.next().await.ok()? {
                ExecOut::Exit(exit) => return Some(exit.code == Some(0)),
                ExecOut::Failed(_) => return None,
                ExecOut::Data(..) => (),
            }
        }
    };
    tokio::time::timeout(LOOK_TIMEOUT, looking).await.ok().flatten().unwrap_or(false)
}

/// The folder of the lease to unpack in, and the name there; an empty name stands for the
/// contents of a folder.
fn target(from: &Path, is_dir: bool, to: &str, is_into: bool) -> anyhow::Result<(String, String)> {
    // `cp -r . there/` and `cp -r here/. there/` copy what is inside.
    let bytes = from.as_os_str().as_encoded_bytes();
    let means_contents = is_dir && (from.file_name().is_none() || bytes.ends_with(b"/."));
    if means_contents || (is_dir && !is_into) {
        return Ok((to.to_owned(), String::new()));
    }
    if is_into {
        let name = from.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} has no plain name", from.display()))?;
        return Ok((to.to_owned(), name.to_owned()));
    }
    let (folder, name) = match to.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((folder, name)) => (folder, name),
        None => ("", to),
    };
    if matches!(name, "." | "..") {
        bail!(Usage::new(format!("{to} names no file"), "end a folder's name with `/`"));
    }
    Ok((folder.to_owned(), name.to_owned()))
}

/// Bytes of all files in a tar stream, headers and padding not counted.
fn content_bytes(stream: &mut File) -> io::Result<u64> {
    const BLOCK: u64 = 512;
    let (mut sum, mut header) = (0_u64, [0; 512]);
    loop {
        match stream.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(sum),
            other => other?,
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(sum);
        }
        let size = field(&header[124..136]);
        // Other kinds with a size carry long names.
        if matches!(header[156], b'0' | 0) {
            sum = sum.saturating_add(size);
        }
        let padded = size.div_ceil(BLOCK).saturating_mul(BLOCK);
        let skip = i64::try_from(padded).map_err(io::Error::other)?;
        stream.seek(SeekFrom::Current(skip))?;
    }
}

/// A number of a tar header: octal text, or big-endian behind a set first bit.
fn field(bytes: &[u8]) -> u64 {
    if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        return bytes[4..].iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    }
    let digits = bytes.iter().filter(|byte| (b'0'..=b'7').contains(*byte));
    digits.fold(0_u64, |sum, byte| sum.wrapping_mul(8).wrapping_add(u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_is_a_lease() {
        let fetch = Way::parse("train:/work/out", "here").unwrap();
        let (lease, from) = ("train".to_owned(), "/work/out".to_owned());
        assert_eq!(fetch, Way::Fetch { lease, from, to: "here".into() });
        let send = Way::parse("./a:b", "lse_01:").unwrap();
        let (lease, to) = ("lse_01".to_owned(), String::new());
        assert_eq!(send, Way::Send { from: "./a:b".into(), lease, to });
        assert!(Way::parse("a", "b").is_err());
        assert!(Way::parse("a:x", "b:y").is_err());
    }

    #[test]
    fn what_is_sent_lands_where_cp_puts_it() {
        let at = |from: &str, is_dir, to: &str, is_into| {
            let (folder, name) = target(Path::new(from), is_dir, to, is_into).unwrap();
            format!("{folder}|{name}")
        };
        assert_eq!(at("data/a.csv", false, "/work/", true), "/work/|a.csv");
        assert_eq!(at("data/a.csv", false, "/work/b.csv", false), "/work|b.csv");
        assert_eq!(at("a.csv", false, "b.csv", false), "|b.csv");
        assert_eq!(at("a.csv", false, "/b.csv", false), "/|b.csv");
        assert_eq!(at("data", true, "/work/", true), "/work/|data");
        assert_eq!(at("data", true, "/work/new", false), "/work/new|");
        assert_eq!(at(".", true, "/work/", true), "/work/|");
        assert_eq!(at("data/.", true, "/work", true), "/work|");
        assert!(target(Path::new("a"), false, "/work/..", false).is_err());
    }

    #[test]
    fn contents_are_counted_and_a_fetched_folder_takes_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("a"), vec![1; 1_000]).unwrap();
        fs::write(data.join("b".repeat(150)), vec![2; 24]).unwrap();
        let mut stream = pack(&[(data, "data".to_owned(), true)]).unwrap();
        assert_eq!(content_bytes(&mut stream).unwrap(), 1_024);
        stream.rewind().unwrap();
        let to = dir.path().join("new");
        place(stream, &to).unwrap();
        assert_eq!(fs::read(to.join("a")).unwrap(), vec![1; 1_000]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_fetched_file_takes_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("a");
        fs::write(&from, "x").unwrap();
        let stream = pack(&[(from, "a".to_owned(), true)]).unwrap();
        let to = dir.path().join("b");
        place(stream, &to).unwrap();
        assert_eq!(fs::read(to).unwrap(), b"x");
    }
}
