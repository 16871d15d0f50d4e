//! The thread that takes datagrams, and the tasks beside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use welkin_match::Fleet;
use welkin_net::{DatagramAnswers, DatagramBatch, DatagramPath, DatagramSocket};

use super::{Beats, Work};
use crate::Shutdown;

/// What comes within this time is taken together: at 100 000 beats a second that is two hundred for
/// the price of one wake-up, and nobody minds a beat that counts two milliseconds later.
const GATHER: Duration = Duration::from_millis(2);
/// Batches until the thread looks at anything else.
const BATCHES_MAX: usize = 256;
/// How often a part of the sessions is looked at, and how many parts there are: two seconds for all.
const SWEEP_EVERY: Duration = Duration::from_millis(125);
const SWEEP_PARTS: usize = 16;
/// The pause after a failure of the socket.
const FAULT_PAUSE: Duration = Duration::from_millis(200);
/// How often sessions are written down and dropped datagrams are told of.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// What the thread has in hand; its memory is used again and again.
struct Hands {
    batch: DatagramBatch,
    answers: DatagramAnswers,
    work: Work<DatagramPath>,
}

impl Beats {
    /// Takes datagrams into the fleet, until a stop is asked for.
    pub fn serve(&self, fleet: &Arc<Mutex<Fleet>>, shutdown: &Shutdown) {
        let socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stop = Arc::new(AtomicBool::new(false));
        let (beats, fleet, stopped) = (self.clone(), Arc::clone(fleet), Arc::clone(&stop));
        let run = move || beats.run(socket.as_ref(), &fleet, &stopped);
        let thread = match thread::Builder::new().name("heartbeats".to_owned()).spawn(run) {
            Ok(thread) => thread,
            Err(error) => {
                warn!(%error, "no thread for heartbeats: they come over streams only");
                return;
            }
        };
        let (beats, asked) = (self.clone(), shutdown.clone());
        shutdown.spawn("heartbeats", async move {
            tokio::select! {
                () = beats.clone().keep_writing() => (),
                () = asked.asked() => (),
            }
            stop.store(true, Ordering::Release);
            let end = move || {
                let _ = thread.join();
                beats.keep();
            };
            let _ = tokio::task::spawn_blocking(end).await;
        });
    }

    async fn keep_writing(self) {
        let mut before = self.counters();
        loop {
            tokio::time::sleep(KEEP_EVERY).await;
            let beats = self.clone();
            let _ = tokio::task::spawn_blocking(move || beats.keep()).await;
            let now = self.counters();
            if now.dropped() > before.dropped() {
                let sessions = self.sessions();
                let taken = now.taken - before.taken;
                let (old, unknown) = (now.old - before.old, now.unknown - before.unknown);
                let forged = now.forged - before.forged;
                let malformed = now.malformed - before.malformed;
                info!(sessions, taken, old, unknown, forged, malformed, "heartbeats were dropped");
            }
            before = now;
        }
    }

    fn run(&self, socket: Option<&DatagramSocket>, fleet: &Mutex<Fleet>, stop: &AtomicBool) {
        let mut hands = Hands {
            batch: DatagramBatch::new(),
            answers: DatagramAnswers::new(),
            work: Work(Vec::new()),
        };
        let mut sweep_at = Instant::now() + SWEEP_EVERY;
        while !stop.load(Ordering::Acquire) {
            let now = Instant::now();
            if now >= sweep_at {
                sweep_at = now + SWEEP_EVERY;
                self.sweep(fleet, self.sessions().div_ceil(SWEEP_PARTS));
            }
            let within = sweep_at.saturating_duration_since(now);
            let Some(socket) = socket else {
                thread::sleep(within);
                continue;
            };
            match socket.wait(within) {
                Ok(true) => {
                    thread::sleep(GATHER);
                    self.take(socket, fleet, &mut hands);
                }
                Ok(false) => (),
                Err(error) => self.fault(&error),
            }
        }
    }

    fn take(
        &self,
        socket: &DatagramSocket,
        fleet: &Mutex<Fleet>,
        Hands { batch, answers, work }: &mut Hands,
    ) {
        for _ in 0..BATCHES_MAX {
            let has_more = match socket.receive(batch) {
                Ok(has_more) => has_more,
                Err(error) => return self.fault(&error),
            };
            self.hear(work, fleet, batch.iter(), |way, note| answers.push(way, note));
            // An answer that is lost is asked for again.
            let _ = socket.send(answers);
            if !has_more {
                return;
            }
        }
    }

    #[expect(clippy::unused_self, reason = "what happens here is of these beats")]
    fn fault(&self, error: &std::io::Error) {
        warn!(%error, "the socket for heartbeats fails; trying again");
        thread::sleep(FAULT_PAUSE);
    }
}
