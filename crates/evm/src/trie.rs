//! A Merkle-Patricia trie whose nodes lie on the disk by their path.
//!
//! A change loads the nodes on the way to it and no others; what it leaves behind are the nodes to
//! write and those to remove. Keys are hashes, all of one length, so no branch holds a value. A node
//! lies under its path from the root rather than under its hash: it has one place, and what replaces
//! it needs no counting of references.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{B256, keccak256};
use alloy_rlp::{Encodable as _, Header};
use alloy_trie::EMPTY_ROOT_HASH;

use crate::store::ReadError;

/// A way from the root, one nibble a byte.
pub(crate) type Path = Vec<u8>;
/// Nodes to be written, and with `None` to be removed.
pub(crate) type Nodes = BTreeMap<Path, Option<Vec<u8>>>;

const DAMAGED: ReadError = ReadError::Damaged { what: "a node of the trie" };

#[derive(Debug)]
enum Node {
    Leaf { rest: Path, value: Vec<u8> },
    Extension { rest: Path, child: Child },
    Branch(Box<[Option<Child>; 16]>),
}

#[derive(Debug)]
enum Child {
    /// On the disk: as its parent refers to it, by hash or, where it is short, whole.
    Kept(Vec<u8>),
    /// Here, and perhaps changed.
    Open(Box<Node>),
}

/// A trie that is being changed.
pub(crate) struct Trie<L> {
    load: L,
    before: B256,
    root: Option<Child>,
    loaded: BTreeSet<Path>,
}

impl<L> std::fmt::Debug for Trie<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trie").field("root", &self.root).finish_non_exhaustive()
    }
}

impl<L: Fn(&[u8]) -> Result<Option<Vec<u8>>, ReadError>> Trie<L> {
    /// Opens the trie whose nodes `load` finds by path.
    pub(crate) fn new(root: B256, load: L) -> Self {
        let kept = (root != EMPTY_ROOT_HASH).then(|| Child::Kept(Vec::new()));
        Self { load, before: root, root: kept, loaded: BTreeSet::new() }
    }

    /// Sets the value of a key, or removes it.
    pub(crate) fn set(&mut self, key: B256, value: Option<Vec<u8>>) -> Result<(), ReadError> {
        let nibbles = nibbles(key);
        let mut path = Path::new();
        let root = match self.root.take() {
            Some(child) => Some(self.open(child, &path)?),
            None => None,
        };
        let root = self.update(root, &mut path, &nibbles, value)?;
        self.root = root.map(|node| Child::Open(Box::new(node)));
        Ok(())
    }

    /// The root of the changed trie, and what is to be written for it.
    pub(crate) fn finish(self) -> (B256, Nodes) {
        let mut nodes: Nodes = self.loaded.into_iter().map(|path| (path, None)).collect();
        let root = match self.root {
            None => return (EMPTY_ROOT_HASH, nodes),
            Some(Child::Kept(_)) => return (self.before, nodes),
            Some(root) => root,
        };
        refer(root, &mut Path::new(), &mut nodes);
        let root = nodes.get([].as_slice()).and_then(Option::as_ref);
        (root.map_or(EMPTY_ROOT_HASH, keccak256), nodes)
    }

    fn open(&mut self, child: Child, path: &[u8]) -> Result<Node, ReadError> {
        match child {
            Child::Open(node) => Ok(*node),
            Child::Kept(_) => {
                let bytes = (self.load)(path)?.ok_or(DAMAGED)?;
                self.loaded.insert(path.to_vec());
                decode(&bytes).ok_or(DAMAGED)
            }
        }
    }

    /// Changes what is below a node; `path` leads to it, `key` on from it.
    fn update(
        &mut self,
        node: Option<Node>,
        path: &mut Path,
        key: &[u8],
        value: Option<Vec<u8>>,
    ) -> Result<Option<Node>, ReadError> {
        let Some(node) = node else {
            return Ok(value.map(|value| Node::Leaf { rest: key.to_vec(), value }));
        };
        match node {
            Node::Leaf { rest, value: old } => {
                if rest == key {
                    return Ok(value.map(|value| Node::Leaf { rest, value }));
                }
                let leaf = |rest: &[u8]| Node::Leaf { rest: rest.to_vec(), value: old.clone() };
                let Some(value) = value else { return Ok(Some(leaf(&rest))) };
                let common = common(&rest, key);
                let (nibble, after) = split(&rest, common);
                Ok(Some(fork(&rest[..common], (nibble, open(leaf(after))), key, value)))
            }
            Node::Extension { rest, child } => {
                let common = common(&rest, key);
                if common == rest.len() {
                    path.extend_from_slice(&rest);
                    let below = self.open(child, path)?;
                    let below = self.update(Some(below), path, &key[common..], value)?;
                    path.truncate(path.len() - rest.len());
                    return Ok(below.map(|below| lengthened(&rest, below)));
                }
                let Some(value) = value else { return Ok(Some(Node::Extension { rest, child })) };
                let (nibble, after) = split(&rest, common);
                let moved = if after.is_empty() {
                    child
                } else {
                    open(Node::Extension { rest: after.to_vec(), child })
                };
                Ok(Some(fork(&rest[..common], (nibble, moved), key, value)))
            }
            Node::Branch(children) => self.update_branch(children, path, key, value),
        }
    }

    fn update_branch(
        &mut self,
        mut children: Box<[Option<Child>; 16]>,
        path: &mut Path,
        key: &[u8],
        value: Option<Vec<u8>>,
    ) -> Result<Option<Node>, ReadError> {
        let (nibble, after) = split(key, 0);
        let place = &mut children[usize::from(nibble & 15)];
        let is_removal = value.is_none();
        path.push(nibble);
        let below = match place.take() {
            Some(child) => Some(self.open(child, path)?),
            None => None,
        };
        *place = self.update(below, path, after, value)?.map(open);
        path.pop();
        let mut left = children.iter().enumerate().filter(|(_, child)| child.is_some());
        let only = match (left.next(), left.next()) {
            (Some((only, _)), None) if is_removal => only,
            _ => return Ok(Some(Node::Branch(children))),
        };
        // A branch of one way is none: the node behind it takes its place.
        let Some(child) = children[only].take() else { return Ok(None) };
        let nibble = u8::try_from(only).map_err(|_| DAMAGED)?;
        path.push(nibble);
        let below = self.open(child, path)?;
        path.pop();
        Ok(Some(lengthened(&[nibble], below)))
    }
}

fn open(node: Node) -> Child {
    Child::Open(Box::new(node))
}

/// A branch after `common` nibbles of `key`, with what was there and a new leaf.
fn fork(common: &[u8], (old, child): (u8, Child), key: &[u8], value: Vec<u8>) -> Node {
    let (new, rest) = split(key, common.len());
    let mut children: Box<[Option<Child>; 16]> = Box::default();
    children[usize::from(old & 15)] = Some(child);
    children[usize::from(new & 15)] = Some(open(Node::Leaf { rest: rest.to_vec(), value }));
    let branch = Node::Branch(children);
    if common.is_empty() { branch } else { lengthened(common, branch) }
}

/// A node reached by more nibbles than it was.
fn lengthened(before: &[u8], node: Node) -> Node {
    let joined = |rest: &[u8]| [before, rest].concat();
    match node {
        Node::Leaf { rest, value } => Node::Leaf { rest: joined(&rest), value },
        Node::Extension { rest, child } => Node::Extension { rest: joined(&rest), child },
        branch @ Node::Branch(_) => Node::Extension { rest: before.to_vec(), child: open(branch) },
    }
}

fn nibbles(key: B256) -> Path {
    key.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect()
}

fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// The nibble at a place and those after it; keys are of one length, so that it is there.
fn split(key: &[u8], place: usize) -> (u8, &[u8]) {
    match key.get(place..).and_then(<[u8]>::split_first) {
        Some((nibble, rest)) => (*nibble, rest),
        None => (0, &[]),
    }
}

/// Encodes what is open below; returns how the parent refers to it.
fn refer(child: Child, path: &mut Path, nodes: &mut Nodes) -> Vec<u8> {
    let node = match child {
        Child::Kept(reference) => return reference,
        Child::Open(node) => *node,
    };
    let mut payload = Vec::new();
    match node {
        Node::Leaf { rest, value } => {
            packed(&rest, true).as_slice().encode(&mut payload);
            value.as_slice().encode(&mut payload);
        }
        Node::Extension { rest, child } => {
            path.extend_from_slice(&rest);
            let below = refer(child, path, nodes);
            path.truncate(path.len() - rest.len());
            packed(&rest, false).as_slice().encode(&mut payload);
            payload.extend_from_slice(&below);
        }
        Node::Branch(children) => {
            for (child, nibble) in children.into_iter().zip(0..) {
                match child {
                    Some(child) => {
                        path.push(nibble);
                        let below = refer(child, path, nodes);
                        path.pop();
                        payload.extend_from_slice(&below);
                    }
                    None => payload.push(alloy_rlp::EMPTY_STRING_CODE),
                }
            }
            payload.push(alloy_rlp::EMPTY_STRING_CODE);
        }
    }
    let mut bytes = Vec::with_capacity(payload.len() + 4);
    Header { list: true, payload_length: payload.len() }.encode(&mut bytes);
    bytes.extend_from_slice(&payload);
    let reference =
        if bytes.len() < 32 { bytes.clone() } else { alloy_rlp::encode(keccak256(&bytes)) };
    nodes.insert(path.clone(), Some(bytes));
    reference
}

/// Nibbles in bytes, with their parity and whether they lead to a leaf in front.
fn packed(nibbles: &[u8], is_leaf: bool) -> Vec<u8> {
    let flag = if is_leaf { 0x20 } else { 0 };
    let (first, pairs) = match nibbles.split_first() {
        Some((odd, rest)) if nibbles.len() % 2 == 1 => (flag | 0x10 | odd, rest),
        _ => (flag, nibbles),
    };
    let mut bytes = vec![first];
    bytes.extend(pairs.chunks(2).map(|pair| match pair {
        [high, low] => high << 4 | low,
        _ => 0,
    }));
    bytes
}

fn unpacked(bytes: &[u8]) -> Option<(Path, bool)> {
    let (first, pairs) = bytes.split_first()?;
    let mut nibbles = Path::new();
    if first & 0x10 != 0 {
        nibbles.push(first & 15);
    }
    nibbles.extend(pairs.iter().flat_map(|byte| [byte >> 4, byte & 15]));
    Some((nibbles, first & 0x20 != 0))
}

fn decode(bytes: &[u8]) -> Option<Node> {
    let mut rest = bytes;
    let mut payload = Header::decode_bytes(&mut rest, true).ok()?;
    let mut items = Vec::with_capacity(17);
    while !payload.is_empty() {
        let before = payload;
        let header = Header::decode(&mut payload).ok()?;
        payload = payload.get(header.payload_length..)?;
        items.push(before.get(..before.len() - payload.len())?);
    }
    if let [key, value] = items[..] {
        let (rest, is_leaf) = unpacked(Header::decode_bytes(&mut &*key, false).ok()?)?;
        return Some(if is_leaf {
            let value = Header::decode_bytes(&mut &*value, false).ok()?.to_vec();
            Node::Leaf { rest, value }
        } else {
            Node::Extension { rest, child: Child::Kept(value.to_vec()) }
        });
    }
    if items.len() != 17 {
        return None;
    }
    let mut children: Box<[Option<Child>; 16]> = Box::default();
    for (place, item) in children.iter_mut().zip(items) {
        if item != [alloy_rlp::EMPTY_STRING_CODE] {
            *place = Some(Child::Kept(item.to_vec()));
        }
    }
    Some(Node::Branch(children))
}

#[cfg(test)]
mod tests {
    //! Against the root that alloy computes of the whole.

    use alloy_primitives::U256;
    use alloy_trie::root::storage_root_unsorted;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_order_of_changes_gives_the_root_of_what_is_left(
            rounds in prop::collection::vec(
                // Few keys that share beginnings, and some that share none.
                prop::collection::vec((0_u8..40, 0_u64..4), 0..30),
                1..6,
            ),
        ) {
            let mut disk = BTreeMap::<Path, Vec<u8>>::new();
            let mut model = BTreeMap::<B256, U256>::new();
            let mut root = EMPTY_ROOT_HASH;
            for round in rounds {
                let mut trie = Trie::new(root, |path: &[u8]| Ok(disk.get(path).cloned()));
                for (seed, value) in round {
                    let mut key = B256::repeat_byte(if seed % 3 == 0 { 0xaa } else { seed });
                    key[31 - usize::from(seed % 5)] ^= seed;
                    let value = U256::from(value) << (value * 60);
                    if value.is_zero() { model.remove(&key); } else { model.insert(key, value); }
                    let value = (!value.is_zero()).then(|| alloy_rlp::encode(value));
                    trie.set(key, value).unwrap();
                }
                let (next, nodes) = trie.finish();
                root = next;
                for (path, node) in nodes {
                    match node {
                        Some(node) => disk.insert(path, node),
                        None => disk.remove(&path),
                    };
                }
                prop_assert_eq!(root, storage_root_unsorted(model.clone()));
            }
            if model.is_empty() {
                prop_assert!(disk.is_empty(), "nodes are left of an empty trie");
            }
        }
    }
}
