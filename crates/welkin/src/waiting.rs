//! A task that waits in a queue, as its process tells it: to the person in front of it, and to
//! `welkin ps` and `welkin show`.

use std::time::Duration;

use serde::Serialize;
use welkin_node::buyer::{Ask, Home, KeptLease, KeptWait, QueueEvent};
use welkin_node::outside;
use welkin_proto::index::Filter;
use welkin_proto::queue::Standing;
use welkin_types::task::Needs;
use welkin_types::{LeaseState, NodeId, TicketId};

use crate::task::Job;
use crate::{Context, out};

/// How often it is looked whether somebody wants this to stop waiting.
const STOP_LOOKED_FOR_EVERY: Duration = Duration::from_millis(200);

/// How what waits is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Text,
    Json,
    Silent,
}

/// Tells that a task waits; what is kept of it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    home: Home,
    manner: Manner,
    /// What it waits for, in a word or two.
    what: String,
    kept: KeptWait,
    is_kept: bool,
    /// What was said last, without the times in it.
    said: String,
}

/// What machines are told, one line each.
#[derive(Debug, Serialize)]
struct Told<'a> {
    state: LeaseState,
    ticket: TicketId,
    indexer: Option<NodeId>,
    #[serde(flatten)]
    standing: &'a Standing,
    why: &'a str,
}

impl Waiting {
    /// Of a task in the foreground.
    pub(crate) fn new(context: &Context, home: &Home, job: &Job) -> Self {
        let manner = match (context.is_quiet, context.is_json) {
            (_, true) => Manner::Json,
            (true, false) => Manner::Silent,
            (false, false) => Manner::Text,
        };
        Self::of(home, manner, &job.ask, (job.name.clone(), job.command.clone()))
    }

    /// Of a lease that is placed again.
    pub(crate) fn replacing(home: &Home, before: &KeptLease, ask: &Ask) -> Self {
        Self::of(home, Manner::Silent, ask, (before.name.clone(), before.command.clone()))
    }

    fn of(home: &Home, manner: Manner, ask: &Ask, (name, command): (String, String)) -> Self {
        let since = outside::now();
        let kept = KeptWait {
            ticket: TicketId::from_bytes(outside::random()),
            name,
            command,
            indexer: None,
            since,
            until: since.after(ask.queue),
            position: 0,
            of: 0,
            why: String::new(),
            estimate_ms: None,
            updated: since,
        };
        let (home, what) = (home.clone(), what(&ask.needs));
        Self { home, manner, what, kept, is_kept: false, said: String::new() }
    }

    /// Completes once `welkin stop` was said of its ticket.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let (home, ticket) = (self.home.clone(), self.kept.ticket);
        async move {
            while !home.is_wait_stopped(ticket) {
                tokio::time::sleep(STOP_LOOKED_FOR_EVERY).await;
            }
        }
    }

    /// Something has happened in the queue.
    pub(crate) fn event(&mut self, indexer: Option<NodeId>, event: QueueEvent) {
        self.kept.indexer = indexer;
        match event {
            QueueEvent::Standing(standing) => self.standing(&standing),
            QueueEvent::Lost => self.say("queued: the indexer is lost; trying to come back"),
            QueueEvent::Back(_, true) => self.say("queued: back at the same place"),
            QueueEvent::Back(node, false) => {
                let node = out::short(&node);
                self.say(&format!("queued: the place was lost; waits anew at {node}"));
            }
            // Whoever places it says what comes of them.
            QueueEvent::Offers(_) => (),
        }
    }

    fn standing(&mut self, standing: &Standing) {
        let why = why(standing, &self.what);
        let kept = &mut self.kept;
        (kept.position, kept.of) = (standing.position, standing.of);
        (kept.why, kept.estimate_ms) = (why.clone(), standing.estimate_ms);
        kept.updated = outside::now();
        match self.home.save_wait(kept) {
            Ok(()) => self.is_kept = true,
            Err(error) => tracing::debug!(%error, "that it waits is not written down"),
        }
        let place = format!("queued: position {} of {}, {why}", standing.position, standing.of);
        if self.manner == Manner::Json {
            let told = Told {
                state: LeaseState::Queued,
                ticket: self.kept.ticket,
                indexer: self.kept.indexer,
                standing,
                why: &why,
            };
            if let Ok(line) = serde_json::to_string(&told) {
                out::note(&line);
            }
        } else if place != self.said {
            self.said.clone_from(&place);
            self.say(&(place + &times(standing)));
        }
    }

    fn say(&self, text: &str) {
        if self.manner == Manner::Text {
            out::note(&format!("welkin: {text}"));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_kept {
            self.home.remove_wait(self.kept.ticket);
        }
    }
}

/// What is waited for: `rtx4090|rtx4080`, or containers.
fn what(needs: &Needs) -> String {
    match &needs.gpu {
        Some(ask) if !ask.models.is_empty() => ask.models.join("|"),
        Some(_) => "GPUs".to_owned(),
        None => "containers".to_owned(),
    }
}

fn why(standing: &Standing, what: &str) -> String {
    let mut text = match (standing.is_reserved, standing.busy) {
        (true, _) => "what becomes free is kept for it".to_owned(),
        (false, 0) => "waits for its turn".to_owned(),
        (false, 1) if what == "containers" => "the only container is busy".to_owned(),
        (false, 1) => format!("the only {what} is busy"),
        (false, busy) => format!("all {busy} {what} busy"),
    };
    let others: Vec<_> = standing
        .removed
        .iter()
        .filter(|(filter, _)| is_told(*filter))
        .map(|(filter, count)| format!("{count} {}", filter.as_str()))
        .collect();
    if !others.is_empty() {
        text.push_str(&format!(" (others do not fit: {})", others.join(", ")));
    }
    text
}

/// Whether a person can do something about it by asking for something else.
const fn is_told(filter: Filter) -> bool {
    matches!(filter, Filter::Price | Filter::Region | Filter::Reliability | Filter::RoundTrip)
}

fn times(standing: &Standing) -> String {
    let left = out::duration(Duration::from_millis(standing.left_ms));
    let estimate = standing.estimate_ms.map_or_else(String::new, |estimate| {
        format!(
            "; about {} by what became free lately",
            out::duration(Duration::from_millis(estimate))
        )
    });
    format!(", waits at most {left}{estimate}")
}

#[cfg(test)]
pub(crate) mod tests {
    use welkin_types::UnixMillis;

    use super::*;

    /// A task that waits since then for 11 minutes, and was last heard of just now.
    pub(crate) fn kept(since: UnixMillis) -> KeptWait {
        KeptWait {
            ticket: TicketId::from_bytes([1; 16]),
            name: "train".to_owned(),
            command: "python train.py".to_owned(),
            indexer: None,
            since,
            until: since.after(Duration::from_secs(660)),
            position: 3,
            of: 12,
            why: "all 4 rtx4090 busy".to_owned(),
            estimate_ms: Some(180_000),
            updated: since.after(Duration::from_secs(120)),
        }
    }

    #[test]
    fn what_is_waited_for_and_why() {
        let mut standing = Standing {
            position: 3,
            of: 12,
            busy: 4,
            removed: vec![(Filter::Price, 2)],
            is_reserved: false,
            estimate_ms: Some(130_000),
            left_ms: 540_000,
        };
        let needs = Needs { gpu: Some("RTX4090".parse().unwrap()), ..Needs::default() };
        assert_eq!(
            why(&standing, &what(&needs)),
            "all 4 rtx4090 busy (others do not fit: 2 price)"
        );
        assert_eq!(
            times(&standing),
            ", waits at most 9 m 0 s; about 2 m 10 s by what became free lately"
        );
        (standing.is_reserved, standing.removed) = (true, Vec::new());
        assert_eq!(why(&standing, "GPUs"), "what becomes free is kept for it");
    }
}
