//! `welkin forward`: ports of a running lease on this machine's loopback.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use welkin_node::buyer::{Buyer, BuyerError, ForwardStream, Forwarder, HostSession, KeptLease};

use crate::client::{self, Client};
use crate::{Context, Usage, cli, out};

/// Connections at once. A host takes twice as many streams from one buyer and counts one until it
/// has seen its end; more of them wait here.
const CONNECTIONS_MAX: usize = 64;

/// Makes ports of a running lease reachable until it is interrupted.
pub(crate) async fn forward(context: &Context, args: &cli::Forward) -> anyhow::Result<()> {
    let ports = args.ports.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let kept = client::find(&client::home(context), &args.lease)?;
    let client = Client::open(context).await?;
    let done = serve(context, &client, kept, &ports).await;
    client.close().await;
    done
}

/// A port here and one inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    /// 0 takes a free one.
    local: u16,
    inside: u16,
}

/// Reads `8000`, `40001:8000`, or `:8000` for a free port here.
fn parse(text: &str) -> Result<Ports, Usage> {
    let (local, inside) = match text.split_once(':') {
        Some(("", inside)) => ("0", inside),
        Some(pair) => pair,
        None => (text, text),
    };
    match (local.parse(), inside.parse()) {
        (Ok(local), Ok(inside)) if inside != 0 => Ok(Ports { local, inside }),
        _ => Err(Usage::new(
            format!("`{text}` names no ports"),
            "write `8000`, `LOCAL:8000`, or `:8000` for a free port here",
        )),
    }
}

async fn serve(
    context: &Context,
    client: &Client,
    kept: KeptLease,
    ports: &[Ports],
) -> anyhow::Result<()> {
    // Before anything is bound: a lease that can't be reached is known at once.
    let gate = Arc::new(Gate::open(Arc::clone(&client.buyer), kept).await?);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut listening = JoinSet::new();
    for ports in ports {
        let listener = bind(ports.local).await?;
        let here = listener.local_addr().context("failed to learn the port")?;
        let (lease, inside) = (gate.kept.lease, ports.inside);
        if context.is_json {
            let line = serde_json::json!({ "here": here, "lease": lease, "port": inside });
            out::json(&line)?;
        } else {
            out::text(&format!("{here} -> {}:{inside}\n", out::short(&lease)))?;
        }
        listening.spawn(accept(listener, Arc::clone(&gate), Arc::clone(&room), inside));
    }
    tokio::signal::ctrl_c().await.context("failed to wait for Ctrl-C")?;
    // Dropping the set ends the listeners, and theirs end the connections.
    Ok(())
}

async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let text = format!("port {port} of this machine is taken");
            Err(Usage::new(text, "name another, or none for a free one: `:PORT`").into())
        }
        other => other.with_context(|| format!("failed to listen on port {port}")),
    }
}

async fn accept(listener: TcpListener, gate: Arc<Gate>, room: Arc<Semaphore>, port: u16) {
    let mut carrying = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while carrying.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let gate = Arc::clone(&gate);
                carrying.spawn(async move {
                    if let Err(error) = carry(&gate, stream, port).await {
                        let why = welkin_node::chain(&error);
                        out::note(&format!("{peer} -> port {port}: {why}"));
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // As with too many open files: others may end meanwhile.
                out::note(&format!("a connection was not taken: {error}"));
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

async fn carry(gate: &Gate, mut stream: TcpStream, port: u16) -> Result<(), BuyerError> {
    let inside = gate.dial(port).await?;
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.split();
    inside.carry(&mut reader, &mut writer).await;
    Ok(())
}

/// The way into the lease, opened again when it was lost.
struct Gate {
    buyer: Arc<Buyer>,
    kept: KeptLease,
    /// Which conversation this is, and the conversation.
    session: Mutex<(u64, HostSession)>,
}

impl Gate {
    async fn open(buyer: Arc<Buyer>, kept: KeptLease) -> Result<Self, BuyerError> {
        let session = buyer.connect(&kept.host).await?;
        Ok(Self { buyer, kept, session: Mutex::new((0, session)) })
    }

    async fn dial(&self, port: u16) -> Result<ForwardStream, BuyerError> {
        let (number, forwarder) = self.forwarder().await;
        match forwarder.dial(port).await {
            Err(BuyerError::HostLost | BuyerError::Wire(_)) => {
                self.reopen(number).await?;
                self.forwarder().await.1.dial(port).await
            }
            other => other,
        }
    }

    async fn forwarder(&self) -> (u64, Forwarder) {
        let session = self.session.lock().await;
        (session.0, session.1.forwarder(self.kept.lease))
    }

    /// One of those who saw the loss connects, the others wait for it here.
    async fn reopen(&self, lost: u64) -> Result<(), BuyerError> {
        let mut session = self.session.lock().await;
        if session.0 == lost {
            *session = (lost + 1, self.buyer.connect(&self.kept.host).await?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        assert_eq!(parse("8000").unwrap(), Ports { local: 8_000, inside: 8_000 });
        assert_eq!(parse("40001:8000").unwrap(), Ports { local: 40_001, inside: 8_000 });
        assert_eq!(parse(":8000").unwrap(), Ports { local: 0, inside: 8_000 });
        for wrong in ["", "0", "8000:", "x:1", "1:0", "70000"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
