//! The bounds of a spec, beside those of its text forms.

/// The longest name of a task, a volume or a port, in characters.
pub const NAME_LEN_MAX: usize = 63;
/// The longest reference of an image, in bytes.
pub const IMAGE_LEN_MAX: usize = 512;
/// The longest path, in bytes.
pub const PATH_LEN_MAX: usize = 4_095;
/// The most entries of `files`.
pub const FILES_MAX: usize = 256;
/// The longest script or argument, in bytes: what the kernel takes as one argument.
pub const ARG_BYTES_MAX: usize = 131_071;
/// The most arguments of `command`.
pub const ARGS_MAX: usize = 1_024;
/// The most variables.
pub const ENV_MAX: usize = 256;
/// The longest value of a variable, in bytes.
pub const ENV_VALUE_BYTES_MAX: usize = 32 << 10;
/// The longest name of a variable or a secret, in characters.
pub const ENV_NAME_LEN_MAX: usize = 128;
/// The most secrets.
pub const SECRETS_MAX: usize = 64;
/// The most containers of one task.
pub const NODES_MAX: u16 = 1_024;
/// The longest round trip between containers that can be asked for, in milliseconds.
pub const WITHIN_MS_MAX: u32 = 60_000;
/// The most entries of any other list.
pub const LIST_MAX: usize = 64;
/// The most starts of one task.
pub const RETRIES_MAX: u16 = 1_000;
/// The longest text of any other kind, in bytes.
pub const TEXT_LEN_MAX: usize = 1_024;
