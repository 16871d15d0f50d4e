//! Giving up root for good: who the process becomes, and what must be theirs before.
//!
//! The steps, for a process that has one thread and no network socket yet:
//! 1. [`User::find`] reads who it is.
//! 2. [`User::must_reach`] and [`User::take_over`] make sure that they get at their folders.
//! 3. A [`Launcher`](crate::Launcher) is started, which stays root and starts the helper when asked.
//! 4. [`User::assume`] leaves groups, ids and capabilities, and looks whether it worked.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// An unprivileged user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// Why the process can't become that user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// No such name.
    #[error("there is no user `{name}` on this machine")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// It would keep every privilege.
    #[error("`{name}` is root")]
    Root {
        /// What was asked for.
        name: String,
    },
    /// A folder above is closed to them.
    #[error("user {user} can't get to {dir}: {blocked} is closed to them (mode {mode:04o})")]
    Closed {
        /// Who.
        user: String,
        /// Where to.
        dir: PathBuf,
        /// What is in the way.
        blocked: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The folder is someone else's.
    #[error("{dir} holds other things than this program's: it is not given to user {user}")]
    Foreign {
        /// Who.
        user: String,
        /// Which folder.
        dir: PathBuf,
    },
    /// What root trusts could be changed by others.
    #[error("{path} can be changed by others than root")]
    Exposed {
        /// Which folder.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("failed to {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call that gives up a right failed.
    #[error("failed to give up root: {step}")]
    Keeps {
        /// Which.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl User {
    /// Finds a user by name or number. A number needs no entry in `/etc/passwd`; its group is then
    /// the same number.
    ///
    /// # Errors
    ///
    /// [`UserError::Unknown`] for a name that is not there, [`UserError::Root`] for root.
    pub fn find(name: &str) -> Result<Self, UserError> {
        let table = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::find_in(&table, name)
    }

    fn find_in(table: &str, name: &str) -> Result<Self, UserError> {
        let number = name.parse::<u32>().ok().filter(|number| *number != u32::MAX);
        let listed = table.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (listed, _, uid, gid) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let user =
                Self { name: listed.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? };
            (listed == name || Some(user.uid) == number).then_some(user)
        });
        let unlisted = || number.map(|uid| Self { name: name.to_owned(), uid, gid: uid });
        let unknown = || UserError::Unknown { name: name.to_owned() };
        let user = listed.or_else(unlisted).ok_or_else(unknown)?;
        if user.uid == 0 || user.gid == 0 {
            return Err(UserError::Root { name: name.to_owned() });
        }
        Ok(user)
    }

    /// Its name, or its number where it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// Checks, by owners and permission bits, that they can pass every folder on the way to `dir`.
    /// What is not there yet is not in the way.
    ///
    /// # Errors
    ///
    /// [`UserError::Closed`] names the folder that is in the way.
    pub fn must_reach(&self, dir: &Path) -> Result<(), UserError> {
        let absolute = absolute(dir)?;
        for above in folders_above(&absolute) {
            let Ok(found) = fs::metadata(&above) else { continue };
            let shift = match () {
                () if found.uid() == self.uid => 6,
                () if found.gid() == self.gid => 3,
                () => 0,
            };
            if (found.mode() >> shift) & 1 == 0 {
                return Err(UserError::Closed {
                    user: self.name.clone(),
                    dir: absolute,
                    blocked: above,
                    mode: found.mode() & 0o7777,
                });
            }
        }
        Ok(())
    }

    /// Makes `dir` and all in it theirs; a new one gets `mode`. A folder that holds other things than
    /// `is_ours` knows, and is not theirs already, is refused.
    ///
    /// # Errors
    ///
    /// [`UserError::Foreign`], or [`UserError::Io`] where the system refuses.
    pub fn take_over(
        &self,
        dir: &Path,
        mode: u32,
        is_ours: impl Fn(&OsStr) -> bool,
    ) -> Result<(), UserError> {
        let io =
            |doing| move |source: io::Error| UserError::Io { doing, path: dir.to_owned(), source };
        if let Some(above) = dir.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(io("make"))?;
        }
        match fs::DirBuilder::new().mode(mode).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io("make")(error));
            }
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::open(dir, flags, Mode::empty());
        let open = open.map_err(|errno| io("open")(errno.into()))?;
        let owner = rustix::fs::fstat(&open).map_err(|errno| io("look at")(errno.into()))?.st_uid;
        let entries = Dir::read_from(&open).map_err(|errno| io("read")(errno.into()))?;
        let mut names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_owned());
        let is_known = |name: &CStr| {
            name == c"." || name == c".." || is_ours(OsStr::from_bytes(name.to_bytes()))
        };
        if owner != self.uid && names.any(|name| !is_known(&name)) {
            return Err(UserError::Foreign { user: self.name.clone(), dir: dir.to_owned() });
        }
        self.give(&open, 0).map_err(io("change the owner of"))
    }

    /// Gives away an open directory and what is in it, without following a link or touching a file
    /// that has a second name somewhere else.
    fn give(&self, dir: &OwnedFd, depth: u32) -> io::Result<()> {
        let ids = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&found)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if depth >= DEPTH_MAX {
                    return Err(io::Error::other("the folders are too deep"));
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(&found, ".", flags, Mode::empty())?;
                self.give(&inner, depth + 1)?;
            } else if stat.st_nlink == 1 {
                rustix::fs::chownat(found.as_fd(), "", ids.0, ids.1, AtFlags::EMPTY_PATH)?;
            }
        }
        Ok(rustix::fs::fchown(dir, ids.0, ids.1)?)
    }

    /// Becomes this user for good: no supplementary groups, no capabilities, none to be had by
    /// executing something either.
    ///
    /// The caller has one thread; every later one is like it.
    ///
    /// # Errors
    ///
    /// [`UserError::Keeps`]; the process must not go on then.
    pub fn assume(&self) -> Result<(), UserError> {
        let keeps =
            |step| move |errno: rustix::io::Errno| UserError::Keeps { step, source: errno.into() };
        let threads = crate::sys::thread_count();
        if !threads.is_ok_and(|count| count == 1) {
            let source = io::Error::other("another thread would stay root");
            return Err(UserError::Keeps { step: "threads", source });
        }
        for number in 0..u64::BITS {
            // The first number without a capability ends the list.
            let one = CapabilitySet::from_bits_retain(1 << number);
            match rustix::thread::remove_capability_from_bounding_set(one) {
                Err(rustix::io::Errno::INVAL) => break,
                other => other.map_err(keeps("bounding set"))?,
            }
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&[]).map_err(keeps("groups"))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(keeps("group"))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(keeps("user"))?;
        rustix::thread::clear_ambient_capability_set().map_err(keeps("ambient set"))?;
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, none).map_err(keeps("capabilities"))?;
        rustix::thread::set_no_new_privs(true).map_err(keeps("new privileges"))?;
        self.must_be().map_err(|source| UserError::Keeps { step: "looking", source })
    }

    /// Looks at what the kernel says of this process.
    fn must_be(&self) -> io::Result<()> {
        let text = fs::read_to_string("/proc/self/status")?;
        let is = |key: &str, wanted: &[String]| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("?");
            value.split_whitespace().eq(wanted.iter().map(String::as_str))
        };
        let none = [format!("{:016x}", 0)];
        let capabilities = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
        let holds = is("Uid:", &vec![self.uid.to_string(); 4])
            && is("Gid:", &vec![self.gid.to_string(); 4])
            && is("Groups:", &[])
            && is("NoNewPrivs:", &["1".to_owned()])
            && capabilities.iter().all(|key| is(key, &none));
        if holds { Ok(()) } else { Err(io::Error::other("something of root is left")) }
    }
}

/// Checks that only root can change `dir`, or what would be made there, and what is above it: what a
/// privileged process works in must not be exchanged below it.
///
/// # Errors
///
/// [`UserError::Exposed`] names the folder.
pub fn must_be_roots(dir: &Path) -> Result<(), UserError> {
    let absolute = absolute(dir)?;
    for path in std::iter::once(absolute.clone()).chain(folders_above(&absolute)) {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        // In a sticky folder nobody removes what is another's; a link has no permissions.
        let is_open = found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0;
        if found.uid() != 0 || is_open && !found.is_symlink() {
            return Err(UserError::Exposed { path });
        }
    }
    Ok(())
}

/// The folders above, those that its name tells and those that links lead through.
fn folders_above(path: &Path) -> Vec<PathBuf> {
    let real = match path.canonicalize() {
        Ok(real) => real.parent().map(Path::to_owned),
        Err(_) => path.ancestors().find_map(|above| above.canonicalize().ok()),
    };
    let real = real.unwrap_or_default();
    path.ancestors().skip(1).chain(real.ancestors()).map(Path::to_owned).collect()
}

fn absolute(dir: &Path) -> Result<PathBuf, UserError> {
    std::path::absolute(dir).map_err(|source| UserError::Io {
        doing: "find",
        path: dir.to_owned(),
        source,
    })
}

/// Folders in folders that are given away; ours are three deep.
const DEPTH_MAX: u32 = 32;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const TABLE: &str = "root:x:0:0:root:/root:/bin/sh\nwelkin:x:990:991::/nonexistent:/bin/false\n\
        odd line\nwheel:x:7:0::/:/bin/sh\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let user = User::find_in(TABLE, "welkin").unwrap();
        assert_eq!((user.uid, user.gid), (990, 991));
        assert_eq!(User::find_in(TABLE, "990").unwrap(), user);
        let unlisted = User::find_in(TABLE, "1234").unwrap();
        assert_eq!((unlisted.name(), unlisted.uid(), unlisted.gid), ("1234", 1234, 1234));
        for name in ["root", "0", "wheel", "7"] {
            assert!(matches!(User::find_in(TABLE, name), Err(UserError::Root { .. })), "{name}");
        }
        for name in ["", "nobody-here", "-1", "4294967295", "odd line"] {
            assert!(matches!(User::find_in(TABLE, name), Err(UserError::Unknown { .. })), "{name}");
        }
    }

    #[test]
    fn a_closed_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let user = User { name: "someone".to_owned(), uid: 54_321, gid: 54_321 };
        let inner = dir.path().join("a/b");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let Err(UserError::Closed { blocked, mode, .. }) = user.must_reach(&inner) else {
            panic!("reached")
        };
        assert_eq!((blocked.as_path(), mode), (dir.path(), 0o700));
        // A link does not open a closed folder.
        let open = tempfile::tempdir().unwrap();
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o711)).unwrap();
        symlink(dir.path(), open.path().join("link")).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(user.must_reach(&open.path().join("link/a/b")).is_err());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        user.must_reach(&inner).unwrap();
    }

    #[test]
    fn only_known_things_are_given_away() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let user = User { name: "someone".to_owned(), uid: 54_321, gid: 54_322 };
        let (dir, other) = (top.path().join("ours"), top.path().join("other"));
        fs::create_dir_all(dir.join("host/logs")).unwrap();
        for file in ["host/node.key", "host/linked"] {
            fs::write(dir.join(file), "x").unwrap();
        }
        fs::write(&other, "x").unwrap();
        symlink(&other, dir.join("host/link")).unwrap();
        fs::hard_link(dir.join("host/linked"), top.path().join("second")).unwrap();

        assert!(matches!(user.take_over(&dir, 0o700, |_| false), Err(UserError::Foreign { .. })));
        let is_ours = |name: &OsStr| name == "host";
        user.take_over(&dir, 0o700, is_ours).unwrap();
        let owner = |path: &Path| {
            let found = fs::symlink_metadata(path).unwrap();
            (found.uid(), found.gid())
        };
        for path in ["", "host", "host/logs", "host/node.key", "host/link"] {
            assert_eq!(owner(&dir.join(path)), (54_321, 54_322), "{path}");
        }
        assert_eq!(owner(&other).0, 0);
        assert_eq!(owner(&top.path().join("second")).0, 0);
        // What is theirs may hold what they like.
        user.take_over(&dir, 0o700, |_| false).unwrap();
        let new = top.path().join("new/one");
        user.take_over(&new, 0o700, |_| false).unwrap();
        assert_eq!(
            (owner(&new), fs::metadata(&new).unwrap().mode() & 0o777),
            ((54_321, 54_322), 0o700)
        );
        assert_eq!(owner(&top.path().join("new")).0, 0);
    }

    #[test]
    fn what_root_works_in_is_roots() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let (dir, inner) = (top.path().join("a"), top.path().join("a/b"));
        fs::create_dir(&dir).unwrap();
        must_be_roots(&inner).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(must_be_roots(&inner), Err(UserError::Exposed { path }) if path == dir));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        must_be_roots(&inner).unwrap();
        chown(&dir, Some(54_321), None).unwrap();
        assert!(must_be_roots(&inner).is_err());
    }
}
