//! Who leads: one row with a term, a holder and an end, by the database's clock alone.
//!
//! Steps, each one statement:
//! 1. *claim*: whoever finds the time of the present holder over becomes the holder, in a term one
//!    higher. Two that claim at once wait for each other's row lock; the second finds the time not
//!    over.
//! 2. *renew*: only the holder, only in its term, and only before its time is over.
//! 3. *release*: the holder ends its time now, so that nobody has to wait for it.
//!
//! A term never comes twice, so that the term fences what is written in it.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::Postgres;
use super::error::Trouble;
use super::link::{Link, ask};
use crate::row::{Claim, HolderId, Term};

const CLAIM: &str = "UPDATE welkin_leader SET term = term + 1, holder = $2,
        expires = clock_timestamp() + $3 * interval '1 millisecond'
    WHERE id = 1 AND owner = $1 AND expires <= clock_timestamp() RETURNING term";
const LEFT: &str = "SELECT
        (extract(epoch FROM greatest(expires, clock_timestamp()) - clock_timestamp()) * 1000)::bigint
    FROM welkin_leader WHERE id = 1 AND owner = $1";
const RENEW: &str = "UPDATE welkin_leader
    SET expires = clock_timestamp() + $3 * interval '1 millisecond'
    WHERE id = 1 AND term = $1 AND holder = $2 AND expires > clock_timestamp()";
const RELEASE: &str = "UPDATE welkin_leader SET expires = clock_timestamp()
    WHERE id = 1 AND term = $1 AND holder = $2 AND expires > clock_timestamp()";

/// How long the database may take for one of these.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);

impl Postgres {
    /// Asks to lead for `lasting`.
    ///
    /// # Errors
    ///
    /// [`Trouble`]; then nobody's leadership is known.
    pub async fn claim(&self, holder: HolderId, lasting: Duration) -> Result<Claim, Trouble> {
        let owner = self.inner.owner.as_bytes().as_slice();
        let claimed = self
            .on(&self.inner.leadership, |mut link| async move {
                let lasting = millis(lasting);
                let holder = holder.as_bytes().as_slice();
                let (client, wire) = link.parts();
                let params: [&(dyn ToSql + Sync); 3] = [&owner, &holder, &lasting];
                let term = client.query_opt_scalar::<i64, _>(CLAIM, &params);
                if let Some(term) = ask(wire, ANSWER_TIMEOUT, term).await? {
                    return Ok((link, Claim::Leads(Term(term.unsigned_abs()))));
                }
                let left = left(&mut link, owner).await?;
                Ok((link, Claim::Waits(left)))
            })
            .await?;
        if let Claim::Leads(term) = claimed {
            self.inner.leading.send_replace(Some((term, holder)));
        }
        Ok(claimed)
    }

    /// How long the present leader's time lasts; nothing if nobody leads.
    ///
    /// # Errors
    ///
    /// [`Trouble`]
    pub async fn look(&self) -> Result<Duration, Trouble> {
        let owner = self.inner.owner.as_bytes().as_slice();
        self.on(&self.inner.leadership, |mut link| async move {
            let left = left(&mut link, owner).await?;
            Ok((link, left))
        })
        .await
    }

    /// Goes on leading for `lasting` from now; whether that is granted.
    ///
    /// # Errors
    ///
    /// [`Trouble`]; then the leadership lasts as long as it was granted before.
    pub async fn renew(
        &self,
        term: Term,
        holder: HolderId,
        lasting: Duration,
    ) -> Result<bool, Trouble> {
        let is_renewed = self.change(RENEW, term, holder, Some(lasting)).await?;
        if !is_renewed {
            self.stand_down();
        }
        Ok(is_renewed)
    }

    /// Leads no longer: what waits to be written is dropped, and nothing more is written until the
    /// next [`Self::claim`]. Changes nothing in the database.
    pub fn stand_down(&self) {
        self.inner.leading.send_replace(None);
        self.inner.queue.clear();
    }

    /// Ends the leadership at once, so that the next one has not to wait.
    ///
    /// # Errors
    ///
    /// [`Trouble`]; then it ends by itself.
    pub async fn release(&self, term: Term, holder: HolderId) -> Result<(), Trouble> {
        self.stand_down();
        self.change(RELEASE, term, holder, None).await.map(drop)
    }

    async fn change(
        &self,
        statement: &'static str,
        term: Term,
        holder: HolderId,
        lasting: Option<Duration>,
    ) -> Result<bool, Trouble> {
        self.on(&self.inner.leadership, |mut link| async move {
            let term = i64::try_from(term.0).unwrap_or(i64::MAX);
            let holder = holder.as_bytes().as_slice();
            let lasting = lasting.map(millis);
            let mut params: Vec<&(dyn ToSql + Sync)> = vec![&term, &holder];
            params.extend(lasting.as_ref().map(|lasting| lasting as &(dyn ToSql + Sync)));
            let (client, wire) = link.parts();
            let changed = ask(wire, ANSWER_TIMEOUT, client.execute(statement, &params)).await?;
            Ok((link, changed == 1))
        })
        .await
    }
}

async fn left(link: &mut Link, owner: &[u8]) -> Result<Duration, Trouble> {
    let (client, wire) = link.parts();
    let params: [&(dyn ToSql + Sync); 1] = [&owner];
    let left = client.query_opt_scalar::<i64, _>(LEFT, &params);
    let left = ask(wire, ANSWER_TIMEOUT, left).await?.unwrap_or(0);
    Ok(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

/// A float, as an interval is multiplied by one.
#[expect(clippy::cast_precision_loss, reason = "a few seconds in milliseconds are exact")]
fn millis(duration: Duration) -> f64 {
    duration.as_millis() as f64
}
