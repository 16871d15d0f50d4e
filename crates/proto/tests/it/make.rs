//! Makes any message from any bytes: equal bytes make equal messages, and fewer make smaller ones.
//!
//! The bytes come from `proptest`, so that a failing message shrinks as the bytes do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes to make messages from. Once they are used up, everything is zero and every list is empty.
pub(crate) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// One of so many choices.
    pub(crate) fn choice(&mut self, of: u8) -> u8 {
        self.byte() % of
    }
}

/// What can be made from bytes.
pub(crate) trait Make {
    fn make(source: &mut Source<'_>) -> Self;
}

/// Makes each field of a struct in turn.
macro_rules! make_struct {
    ($($name:path { $($field:ident),* $(,)? })*) => {$(
        impl $crate::make::Make for $name {
            fn make(source: &mut $crate::make::Source<'_>) -> Self {
                Self { $($field: $crate::make::Make::make(source),)* }
            }
        }
    )*};
}

/// Makes one of the variants. A variant that is not listed does not compile.
macro_rules! make_enum {
    ($($name:path [$count:literal] {
        $($number:literal => $variant:ident $(($($part:ident),*))? $({ $($field:ident),* })?),* $(,)?
    })*) => {$(
        impl $crate::make::Make for $name {
            fn make(source: &mut $crate::make::Source<'_>) -> Self {
                #[allow(unused_variables, reason = "it only has to compile")]
                let _all = |value: &Self| match value {
                    $(Self::$variant $(($($part),*))? $({ $($field),* })? => (),)*
                };
                match source.choice($count) {
                    $($number => {
                        $($(let $part = $crate::make::Make::make(source);)*)?
                        $($(let $field = $crate::make::Make::make(source);)*)?
                        Self::$variant $(($($part),*))? $({ $($field),* })?
                    })*
                    _ => unreachable!("the count is that of the variants"),
                }
            }
        }
    )*};
}

pub(crate) use {make_enum, make_struct};

macro_rules! make_number {
    ($($name:ty),*) => {$(
        impl Make for $name {
            /// Small, any, or at a border.
            fn make(source: &mut Source<'_>) -> Self {
                match source.choice(4) {
                    0 => Self::from(source.byte() & 0x7f),
                    1 => Self::MAX,
                    _ => Self::from_le_bytes(source.array()),
                }
            }
        }
    )*};
}
make_number!(u8, u16, u32, u64);

impl Make for i32 {
    fn make(source: &mut Source<'_>) -> Self {
        u32::make(source).cast_signed()
    }
}

impl Make for bool {
    fn make(source: &mut Source<'_>) -> Self {
        source.choice(2) == 1
    }
}

impl<const N: usize> Make for [u8; N] {
    fn make(source: &mut Source<'_>) -> Self {
        source.array()
    }
}

impl Make for String {
    fn make(source: &mut Source<'_>) -> Self {
        const PIECES: [&str; 8] = ["", "a", "é", "\0", "\u{1f980}", "../", "nod_", "{\"x\":1}"];
        let len = source.choice(6);
        (0..len).map(|_| PIECES[usize::from(source.choice(8))]).collect()
    }
}

impl<T: Make> Make for Vec<T> {
    fn make(source: &mut Source<'_>) -> Self {
        let len = source.choice(5);
        (0..len).map(|_| T::make(source)).collect()
    }
}

impl<T: Make> Make for Option<T> {
    fn make(source: &mut Source<'_>) -> Self {
        bool::make(source).then(|| T::make(source))
    }
}

impl<T: Make> Make for Box<T> {
    fn make(source: &mut Source<'_>) -> Self {
        Self::new(T::make(source))
    }
}

impl<A: Make, B: Make> Make for (A, B) {
    fn make(source: &mut Source<'_>) -> Self {
        (A::make(source), B::make(source))
    }
}

impl Make for SocketAddr {
    fn make(source: &mut Source<'_>) -> Self {
        let ip = if bool::make(source) {
            IpAddr::V6(Ipv6Addr::from(source.array::<16>()))
        } else {
            IpAddr::V4(Ipv4Addr::from(source.array::<4>()))
        };
        Self::new(ip, u16::make(source))
    }
}
