//! Logs: order, gaps, tails, times, and bytes that outlive their writer.

use std::io::Write as _;

use rustix::pipe::{PipeFlags, pipe_with};
use welkin_store::{LogLimits, LogPiece, LogReader, LogStart, LogWriter};
use welkin_types::UnixMillis;

const SEGMENT: u64 = 4 << 20;
const SEGMENT_LEN: usize = 4 << 20;

fn read_all(reader: &mut LogReader) -> (Vec<u8>, Vec<(u64, u64)>) {
    let (mut bytes, mut gaps) = (Vec::new(), Vec::new());
    let mut buffer = Vec::new();
    loop {
        match reader.next(&mut buffer, 100_000).unwrap() {
            LogPiece::Data { .. } => bytes.extend_from_slice(&buffer),
            LogPiece::Gap { from, to } => gaps.push((from, to)),
            LogPiece::End { .. } | LogPiece::Later | LogPiece::Abandoned => return (bytes, gaps),
        }
    }
}

fn text_of(dir: &std::path::Path, start: LogStart) -> String {
    let mut reader = LogReader::finished(dir, "stdout", start).unwrap();
    String::from_utf8(read_all(&mut reader).0).unwrap()
}

#[test]
fn a_pipe_is_moved_byte_for_byte_and_survives_its_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    let mut pipe = std::fs::File::from(write);
    let mut log = LogWriter::open(dir.path(), "stdout", LogLimits::default()).unwrap();
    pipe.write_all(b"one\n").unwrap();
    assert_eq!(log.splice_from(&read, UnixMillis(1)).unwrap(), 4);
    pipe.write_all(b"two\n").unwrap();
    // The writer is dropped with bytes still in the pipe, as if its process had been killed.
    drop(log);
    let mut log = LogWriter::open(dir.path(), "stdout", LogLimits::default()).unwrap();
    assert_eq!(log.end(), 4);
    assert_eq!(log.splice_from(&read, UnixMillis(9)).unwrap(), 4);
    let empty = log.splice_from(&read, UnixMillis(9)).unwrap_err();
    assert_eq!(empty.kind(), std::io::ErrorKind::WouldBlock);
    drop(pipe);
    assert_eq!(log.splice_from(&read, UnixMillis(9)).unwrap(), 0);
    drop(log);
    assert_eq!(text_of(dir.path(), LogStart::Offset(0)), "one\ntwo\n");
    assert_eq!(text_of(dir.path(), LogStart::Since(UnixMillis(2))), "two\n");
}

#[test]
fn tails_are_whole_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogWriter::open(dir.path(), "stdout", LogLimits::default()).unwrap();
    log.append(b"a\nb\nc\nno end", UnixMillis(1)).unwrap();
    drop(log);
    assert_eq!(text_of(dir.path(), LogStart::Tail(2)), "c\nno end");
    assert_eq!(text_of(dir.path(), LogStart::Tail(9)), "a\nb\nc\nno end");
    assert_eq!(text_of(dir.path(), LogStart::Tail(0)), "");
}

#[test]
fn a_tail_crosses_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogWriter::open(dir.path(), "stdout", LogLimits::default()).unwrap();
    let line = [b'x'; 99];
    for _ in 0..=SEGMENT / 100 {
        log.append(&line, UnixMillis(1)).unwrap();
        log.append(b"\n", UnixMillis(1)).unwrap();
    }
    drop(log);
    assert_eq!(text_of(dir.path(), LogStart::Tail(1_000)).len(), 100_000);
}

#[test]
fn the_middle_goes_first_and_the_gap_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let limits = LogLimits { bytes_max: 3 * SEGMENT, ..LogLimits::default() };
    let mut log = LogWriter::open(dir.path(), "stdout", limits).unwrap();
    for n in 0..6_u8 {
        log.append(&vec![b'0' + n; SEGMENT_LEN], UnixMillis(u64::from(n))).unwrap();
    }
    log.close();
    let mut reader =
        LogReader::follow(dir.path(), "stdout", LogStart::Offset(0), log.watch()).unwrap();
    let (bytes, gaps) = read_all(&mut reader);
    assert_eq!(gaps, [(SEGMENT, 4 * SEGMENT)]);
    assert_eq!(bytes.len() as u64, 3 * SEGMENT);
    assert_eq!((bytes[0], bytes[SEGMENT_LEN]), (b'0', b'4'));
}

#[tokio::test]
async fn a_follower_waits_for_more_and_sees_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogWriter::open(dir.path(), "stderr", LogLimits::default()).unwrap();
    let mut reader =
        LogReader::follow(dir.path(), "stderr", LogStart::Offset(0), log.watch()).unwrap();
    let mut buffer = Vec::new();
    assert_eq!(reader.next(&mut buffer, 16).unwrap(), LogPiece::Later);
    let (read, ()) = tokio::join!(
        async {
            reader.ready().await;
            reader.next(&mut buffer, 16).unwrap()
        },
        async { log.append(b"hi", UnixMillis(5)).unwrap() },
    );
    assert_eq!(read, LogPiece::Data { offset: 0 });
    log.close();
    reader.ready().await;
    assert_eq!(reader.next(&mut buffer, 16).unwrap(), LogPiece::End { total: 2 });
}

#[tokio::test]
async fn a_writer_that_is_gone_has_ended_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let open = || LogWriter::open(dir.path(), "stdout", LogLimits::default()).unwrap();
    let mut buffer = Vec::new();
    let mut log = open();
    let mut reader =
        LogReader::follow(dir.path(), "stdout", LogStart::Offset(0), log.watch()).unwrap();
    log.append(b"one", UnixMillis(5)).unwrap();
    drop(log);
    assert_eq!(reader.next(&mut buffer, 16).unwrap(), LogPiece::Data { offset: 0 });
    reader.ready().await;
    assert_eq!(reader.next(&mut buffer, 16).unwrap(), LogPiece::Abandoned);

    let mut log = open();
    let mut reader =
        LogReader::follow(dir.path(), "stdout", LogStart::Offset(3), log.watch()).unwrap();
    log.append(b"two", UnixMillis(6)).unwrap();
    log.close();
    drop(log);
    assert_eq!(reader.next(&mut buffer, 16).unwrap(), LogPiece::Data { offset: 3 });
    assert_eq!(reader.next(&mut buffer, 16).unwrap(), LogPiece::End { total: 6 });
}
