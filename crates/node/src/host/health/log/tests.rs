//! Records, what is none, restarts, files that are cut or replaced, pipes.

use std::io::Write as _;

use super::*;

const FAULT: &str = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.";

struct Bench {
    dir: tempfile::TempDir,
    kept: (Cursor, LogCounters),
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, kept: (Cursor::default(), LogCounters::default()) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("kmsg")
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        let mut file = File::options().create(true).append(true).open(self.path()).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn log(&self) -> Log {
        Log::new(self.path(), None, self.kept.clone())
    }
}

fn record(sequence: u64) -> String {
    format!("3,{sequence},77,-;{FAULT}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n")
}

fn seen(log: &mut Log) -> usize {
    let mut count = 0;
    while log.read(Duration::MAX, |_| count += 1) {}
    count
}

#[test]
fn records_are_read_once_and_what_is_none_is_counted() {
    let mut bench = Bench::new();
    bench.write(record(5));
    let mut log = bench.log();
    assert_eq!(seen(&mut log), 1);
    bench.write("nothing\n3,x,1,-;a\n3,6;a\n,,,;\n6,6,80,-;all is well\n");
    bench.write([0xff, 0xfe, b';', b'\n']);
    bench.write(record(9).repeat(3));
    assert_eq!(seen(&mut log), 1);
    let wanted =
        LogCounters { lines: 3, malformed: 5, repeated: 2, missed: 2, rotated: 0, events: 2 };
    assert_eq!(log.counters(), wanted);
    // A program that writes there is not the kernel.
    bench.write(format!("11,10,80,-;{FAULT}\n"));
    assert_eq!(seen(&mut log), 0);
    // The next run goes on where this one stopped, in the middle of a record, too.
    bench.write("3,11,90,-;NVRM: Xid (PCI:00");
    assert_eq!(seen(&mut log), 0);
    bench.kept = (log.cursor(), log.counters());
    bench.write("00:3b:00): 48, x\n");
    let mut log = bench.log();
    assert_eq!(seen(&mut log), 1);
    assert_eq!((log.counters().events, log.counters().lines), (3, 5));
}

#[test]
fn a_line_without_an_end_is_skipped_and_a_flood_is_taken_in_parts() {
    let bench = Bench::new();
    bench.write("x".repeat(10 * LINE_BYTES_MAX));
    let mut log = bench.log();
    assert_eq!(seen(&mut log), 0);
    bench.write(format!("x\n{}", record(1)));
    assert_eq!(seen(&mut log), 1);
    assert_eq!(log.counters().malformed, 1);
    let flood: String =
        (2..40_000).map(|n| format!("6,{n},1,-;a line that says nothing\n")).collect();
    bench.write(&flood);
    bench.write(record(40_000));
    let mut count = 0;
    assert!(log.read(Duration::MAX, |_| count += 1), "more than one pass takes");
    assert_eq!((count, seen(&mut log)), (0, 1));
    assert_eq!(log.counters().missed, 0);
    assert!(log.partial.len() <= LINE_BYTES_MAX);
}

#[test]
fn a_file_that_is_cut_or_replaced_is_read_from_its_beginning() {
    let mut bench = Bench::new();
    bench.write(record(7));
    bench.write(record(8));
    let mut log = bench.log();
    assert_eq!(seen(&mut log), 2);
    File::create(bench.path()).unwrap();
    bench.write(record(1));
    assert_eq!(seen(&mut log), 1, "cut");
    std::fs::rename(bench.path(), bench.dir.path().join("kmsg.1")).unwrap();
    assert_eq!(seen(&mut log), 0, "gone");
    bench.write(record(1));
    assert_eq!(seen(&mut log), 1, "replaced");
    assert_eq!(log.counters().rotated, 2);
    // Cut while nobody read.
    bench.write(record(2));
    assert_eq!(seen(&mut log), 1);
    bench.kept = (log.cursor(), log.counters());
    File::create(bench.path()).unwrap();
    bench.write(record(1));
    assert_eq!(seen(&mut bench.log()), 1);
}

#[test]
fn what_can_not_be_opened_is_said_once_and_tried_again() {
    let bench = Bench::new();
    let mut log = bench.log();
    let at = Duration::from_secs;
    assert!(!log.read(at(0), |_| ()));
    assert!(log.trouble().is_some_and(|why| why.contains("No such file")));
    bench.write(record(1));
    let mut count = 0;
    assert!(!log.read(at(59), |_| count += 1));
    assert_eq!(count, 0);
    log.read(at(60), |_| count += 1);
    assert_eq!((count, log.trouble()), (1, None));
}

#[test]
fn a_pipe_without_a_writer_holds_nobody_up() {
    let bench = Bench::new();
    let path = bench.path();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut log = bench.log();
    assert_eq!(seen(&mut log), 0);
    let mut writer = File::options().write(true).open(&path).unwrap();
    writer.write_all(record(1).as_bytes()).unwrap();
    assert_eq!(seen(&mut log), 1);
    drop(writer);
    assert_eq!(seen(&mut log), 0);
    let mut writer = File::options().write(true).open(&path).unwrap();
    writer.write_all(record(2).as_bytes()).unwrap();
    assert_eq!(seen(&mut log), 1);
}
