//! The index behind a socket on loopback: a search goes there in one frame of bytes, the best come
//! back in another, one at a time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use welkin_match::index::{ClassSet, Features, Index, Scratch, Search, Weights};

/// A connection to an index that a thread of its own has.
pub(crate) struct Line {
    stream: TcpStream,
    frame: Vec<u8>,
}

impl Line {
    pub(crate) fn new(index: Index) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nodelay(true).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        theirs.set_nodelay(true).unwrap();
        std::thread::spawn(move || serve(&index, theirs));
        Self { stream, frame: Vec::new() }
    }

    /// Containers and what they cost.
    pub(crate) fn find(&mut self, search: &Search<'_>) -> Vec<(u32, u64)> {
        self.frame.clear();
        encode(search, &mut self.frame);
        write_frame(&mut self.stream, &mut self.frame);
        read_frame(&mut self.stream, &mut self.frame);
        let (found, _) = self.frame.as_chunks::<12>();
        let words = |one: &[u8; 12]| {
            let mut at = Reader(one);
            (at.u32(), at.u64())
        };
        found.iter().map(words).collect()
    }
}

fn serve(index: &Index, mut stream: TcpStream) {
    let (mut frame, mut scratch) = (Vec::new(), Scratch::default());
    while read_frame(&mut stream, &mut frame) {
        let mut latency = [0; 128];
        let search = decode(&mut Reader(&frame), &mut latency);
        let choice = index.find_with(&mut scratch, &search).unwrap();
        frame.clear();
        frame.extend([0; 2]);
        for chosen in &choice.chosen {
            frame.extend(chosen.row.number().to_le_bytes());
            frame.extend(chosen.terms.sum().to_le_bytes());
        }
        write_frame(&mut stream, &mut frame);
    }
}

/// The first two bytes are for the length.
fn write_frame(stream: &mut TcpStream, frame: &mut [u8]) {
    let length = u16::try_from(frame.len() - 2).unwrap();
    frame[..2].copy_from_slice(&length.to_le_bytes());
    stream.write_all(frame).unwrap();
}

fn read_frame(stream: &mut TcpStream, frame: &mut Vec<u8>) -> bool {
    let mut length = [0; 2];
    if stream.read_exact(&mut length).is_err() {
        return false;
    }
    frame.resize(u16::from_le_bytes(length).into(), 0);
    stream.read_exact(frame).is_ok()
}

fn encode(search: &Search<'_>, frame: &mut Vec<u8>) {
    frame.extend([0; 2]);
    let classes: Vec<_> = search.classes.iter().collect();
    frame.push(u8::try_from(classes.len()).unwrap_or(u8::MAX));
    frame.extend(classes.iter().take(u8::MAX.into()));
    let weights = &search.weights;
    for word in [
        search.slots.into(),
        search.cpu.into(),
        search.memory,
        search.disk,
        search.price_max,
        search.features.bits(),
        search.quality_min.into(),
        search.latency_max.into(),
        search.app.map_or(u32::MAX, u32::from),
        weights.price,
        weights.latency,
        weights.quality,
        weights.cold,
        weights.fragment,
        search.count.into(),
        search.width.into(),
    ] {
        frame.extend(word.to_le_bytes());
    }
    frame.extend(search.request.to_le_bytes());
    frame.push(u8::try_from(search.latency.len()).unwrap());
    search.latency.iter().for_each(|latency| frame.extend(latency.to_le_bytes()));
}

fn decode<'a>(at: &mut Reader<'_>, latency: &'a mut [u16; 128]) -> Search<'a> {
    let count = at.u8();
    let classes: ClassSet = (0..count).map(|_| at.u8()).collect();
    let mut search = Search { classes, slots: at.u16(), cpu: at.u16(), ..Search::ANY };
    (search.memory, search.disk, search.price_max) = (at.u32(), at.u32(), at.u32());
    search.features = Features::from_bits(at.u32());
    (search.quality_min, search.latency_max) = (at.u16(), at.u16());
    search.app = u16::try_from(at.u32()).ok();
    search.weights = Weights {
        price: at.u32(),
        latency: at.u32(),
        quality: at.u32(),
        cold: at.u32(),
        fragment: at.u32(),
    };
    (search.count, search.width) = (at.small(), at.small());
    search.request = at.u64();
    let count = usize::from(at.u8());
    for latency in &mut latency[..count] {
        let (bytes, rest) = at.0.split_first_chunk().unwrap();
        (*latency, at.0) = (u16::from_le_bytes(*bytes), rest);
    }
    search.latency = &latency[..count];
    search
}

/// Numbers from bytes; ours are never short.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u8(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap();
        self.0 = rest;
        *byte
    }

    fn u32(&mut self) -> u32 {
        let (bytes, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        u32::from_le_bytes(*bytes)
    }

    fn u16(&mut self) -> u16 {
        u16::try_from(self.u32()).unwrap()
    }

    fn small(&mut self) -> u8 {
        u8::try_from(self.u32()).unwrap()
    }

    fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }
}
