//! An allocator that puts large memory on large pages.
//!
//! An indexer holds a gigabyte of hosts, sessions and rows, and a search or a heartbeat reads places in
//! it that are far apart. With pages of 4 KiB each of these reads looks its address up in memory as
//! well, and in a virtual machine twice; with pages of 2 MiB the addresses fit into the processor's own
//! table. Linux gives them to whoever asks for a range that begins where such a page does
//! (`madvise(2)`, `MADV_HUGEPAGE`); what the C library maps does not, nor does it stay there when it
//! grows.
//!
//! [`LargePages`] maps what is large by itself; all else goes to the system's allocator. Where the kernel
//! has no large pages the memory is what it always was.
//!
//! **Architecture invariant:** the only `unsafe` outside `welkin-runtime` is in this file.

#![expect(unsafe_code, reason = "an allocator has no safe interface")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr;

use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mremap, mremap_fixed, munmap,
};

/// A large page of x86-64, and of ARM where small ones have 4 KiB.
const PAGE_BYTES: usize = 2 << 20;
/// What is smaller is the system's: it would leave too much of its last page unused.
const LEAST_BYTES: usize = 4 * PAGE_BYTES;

/// The system's allocator, but for what is larger than eight megabytes.
///
/// Such memory begins at a large page's boundary, takes whole large pages, and grows without being
/// copied. It is given back to the system when it is freed.
#[derive(Clone, Copy, Debug, Default)]
pub struct LargePages;

/// Whether an allocation is mapped here. Follows from what the caller must repeat when it frees, so
/// nothing has to be remembered.
const fn is_large(size: usize, align: usize) -> bool {
    size >= LEAST_BYTES && align <= PAGE_BYTES
}

/// The bytes that are mapped for `size`; `None` where no address space has so many.
fn mapped(size: usize) -> Option<usize> {
    size.checked_next_multiple_of(PAGE_BYTES)
}

/// Maps zeroed memory for `size` bytes that begins at a large page's boundary; null where there is none.
fn map(size: usize) -> *mut u8 {
    let reserved = mapped(size).and_then(|length| Some((length, length.checked_add(PAGE_BYTES)?)));
    let Some((length, reserved)) = reserved else { return ptr::null_mut() };
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new private mapping, at a place that the kernel chooses, is nobody else's.
    let begin = unsafe { mmap_anonymous(ptr::null_mut(), reserved, access, MapFlags::PRIVATE) };
    let Ok(begin) = begin else { return ptr::null_mut() };
    let before = begin.addr().next_multiple_of(PAGE_BYTES) - begin.addr();
    let aligned = begin.wrapping_byte_add(before);
    // SAFETY: both ranges, of which one may be empty, are of this mapping and outside what is returned;
    // so is no other. Failing leaves address space unused and harms nobody.
    unsafe {
        let _ = unmap(begin, before);
        let _ = unmap(aligned.wrapping_byte_add(length), PAGE_BYTES - before);
        // A kernel without large pages refuses, and small ones do as well.
        let _ = madvise(aligned, length, Advice::LinuxHugepage);
    }
    aligned.cast()
}

/// Gives a range back; nothing where it is empty.
///
/// # Safety
///
/// As for `munmap(2)`: nobody may use the range any more.
unsafe fn unmap(begin: *mut c_void, length: usize) -> rustix::io::Result<()> {
    // SAFETY: the caller's.
    if length == 0 { Ok(()) } else { unsafe { munmap(begin, length) } }
}

/// Makes a mapping longer or shorter, moving it if need be; null where it can't be, and then it is what
/// it was.
///
/// # Safety
///
/// `memory` was mapped by [`map`] for `old` bytes.
unsafe fn remap(memory: *mut u8, old: usize, new: usize) -> *mut u8 {
    let (Some(old), Some(new_length)) = (mapped(old), mapped(new)) else { return ptr::null_mut() };
    if old == new_length {
        return memory;
    }
    // SAFETY: the whole mapping is the caller's; in place its contents stay where they are.
    if unsafe { mremap(memory.cast(), old, new_length, MremapFlags::empty()) }.is_ok() {
        return memory;
    }
    let place = map(new);
    if place.is_null() {
        return place;
    }
    // SAFETY: `place` has just been mapped with that length and is nobody's; the contents move there
    // with their pages, and the old range is no mapping any more.
    let moved =
        unsafe { mremap_fixed(memory.cast(), old, new_length, MremapFlags::MAYMOVE, place.cast()) };
    match moved {
        Ok(_) => place,
        // The kernel may have given `place` up before it failed, and somebody may have that range by
        // now: it is left as it is, and only address space is lost.
        Err(_) => ptr::null_mut(),
    }
}

// SAFETY: what is large is mapped with room for its size, at a large page's boundary, which satisfies
// every alignment that `is_large` lets through; all else is `System`'s. Which of the two it was follows
// from the layout, which callers must repeat. Nothing here panics or allocates.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if is_large(layout.size(), layout.align()) {
            if let Some(length) = mapped(layout.size()) {
                // SAFETY: it was mapped for this layout, and the caller has done with it.
                let _ = unsafe { unmap(memory.cast(), length) };
            }
            return;
        }
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let was_large = is_large(layout.size(), layout.align());
        let is_large = is_large(new_size, layout.align());
        if was_large && is_large {
            // SAFETY: it was mapped for this layout.
            return unsafe { remap(memory, layout.size(), new_size) };
        }
        if !was_large && !is_large {
            // SAFETY: the caller's.
            return unsafe { System.realloc(memory, layout, new_size) };
        }
        // SAFETY: the caller promises that the new size is within bounds for this alignment; the two
        // memories are different ones, each at least as long as what is copied.
        unsafe {
            let new = Layout::from_size_align_unchecked(new_size, layout.align());
            let place = self.alloc(new);
            if !place.is_null() {
                ptr::copy_nonoverlapping(memory, place, layout.size().min(new_size));
                self.dealloc(memory, layout);
            }
            place
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[global_allocator]
    static MEMORY: LargePages = LargePages;

    fn word(place: usize) -> u64 {
        (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Whether a list of words holds what its places say, looked at here and there.
    fn is_whole(words: &[u64]) -> bool {
        let places = (0..words.len()).step_by(509).chain(words.len().checked_sub(1));
        places.into_iter().all(|place| words[place] == word(place))
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(24))]

        /// Whatever lengths it goes through, from small ones to large ones and back, memory keeps what
        /// stands in it, and what is large stands where a large page begins.
        #[test]
        fn memory_keeps_its_contents_as_it_grows_and_shrinks(
            lengths in proptest::collection::vec(1_usize..6_000_000, 1..8),
        ) {
            let (mut words, mut others) = (Vec::<u64>::new(), Vec::new());
            for length in lengths {
                words.truncate(length);
                words.shrink_to_fit();
                prop_assert!(is_whole(&words));
                words.reserve_exact(length - words.len());
                words.extend((words.len()..length).map(word));
                prop_assert!(is_whole(&words));
                // Something in the way of what grows next.
                others.push(words.clone());
                let is_aligned = words.as_ptr().addr().is_multiple_of(PAGE_BYTES);
                prop_assert!(words.capacity() * 8 < LEAST_BYTES || is_aligned);
            }
            prop_assert!(others.iter().all(|words| is_whole(words)));
        }

        #[test]
        fn zeroed_memory_is_zeroed_when_it_is_had_again(length in 1_usize..20 << 20) {
            for _ in 0..2 {
                let mut bytes = vec![0_u8; length];
                prop_assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(0xff);
                prop_assert_eq!(bytes.len(), length);
            }
        }
    }

    #[test]
    fn what_no_address_space_has_is_refused() {
        let mut words = Vec::<u8>::new();
        assert!(words.try_reserve(isize::MAX as usize - PAGE_BYTES).is_err());
        words.resize(LEAST_BYTES, 1);
        assert!(words.try_reserve(isize::MAX as usize - 2 * LEAST_BYTES).is_err());
        assert!(words.iter().all(|byte| *byte == 1));
    }

    #[test]
    fn odd_alignments_are_met() {
        for align in [1, 64, 4_096, PAGE_BYTES, 2 * PAGE_BYTES] {
            let layout = Layout::from_size_align(LEAST_BYTES + 1, align).unwrap();
            // SAFETY: the layout is not empty, and what is had is freed with the same one.
            unsafe {
                let memory = LargePages.alloc(layout);
                assert!(!memory.is_null() && memory.addr().is_multiple_of(align));
                memory.write_bytes(7, LEAST_BYTES + 1);
                LargePages.dealloc(memory, layout);
            }
        }
    }
}
