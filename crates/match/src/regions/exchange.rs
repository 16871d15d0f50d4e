//! Questions and answers between indexers, and what is taken of them.

use welkin_proto::Signed;
use welkin_proto::gossip::{
    CARDS_PER_MESSAGE, Directory, EVIDENCE_PER_MESSAGE, Evidence, Gossip, GossipRefusal,
    IndexerCard, Summary, VERSIONS_PER_MESSAGE, Versions,
};
use welkin_types::{AccountId, NodeId, UnixMillis};

use super::{
    EVIDENCE_WAITING_MAX, INDEXERS_MAX, Known, OPERATOR_INDEXERS_MAX, Output, Regions, UNSEEN_MAX,
};

impl Regions {
    /// The answer to the question of `from`, who has proved its key; it teaches this side, too.
    ///
    /// # Errors
    ///
    /// [`GossipRefusal::Bounds`] where the question is too long; what is forged is left out.
    pub fn answer(
        &mut self,
        now: UnixMillis,
        from: NodeId,
        asked: Gossip,
    ) -> Result<Gossip, GossipRefusal> {
        if !asked.is_bounded() {
            self.refused += 1;
            return Err(GossipRefusal::Bounds("the message"));
        }
        let mut answer = Gossip::default();
        for theirs in &asked.versions {
            let own = self.versions_of(theirs.node);
            if own.card < theirs.card || own.summary < theirs.summary {
                answer.versions.push(own);
            }
        }
        if asked.pulls {
            self.fill(&mut answer, &asked.versions, true);
        }
        self.take(now, asked);
        if let Some(known) = self.known.get_mut(&from) {
            known.is_heard = true;
        }
        Ok(answer)
    }

    /// What hosts and buyers are told: the indexers that have answered here, and this one.
    pub fn directory(&self) -> Directory {
        let is_told =
            |node: &NodeId, known: &Known| *node == self.config.node || known.is_confirmed();
        let told = self.known.iter().filter(|(node, known)| is_told(node, known));
        let told: Vec<_> = told.map(|(_, known)| known).take(VERSIONS_PER_MESSAGE).collect();
        let summaries = told.iter().filter_map(|known| known.summary.as_ref());
        Directory {
            cards: told.iter().map(|known| known.signed.clone()).collect(),
            summaries: summaries
                .map(|(signed, _)| signed.clone())
                .take(CARDS_PER_MESSAGE)
                .collect(),
            reported: Vec::new(),
        }
    }

    /// How many indexers are known, this one included.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known, not even this one.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The card of an indexer, and its operator's account.
    pub fn card(&self, node: NodeId) -> Option<(&IndexerCard, AccountId)> {
        self.known.get(&node).map(|known| (&known.card, known.operator))
    }

    /// The summaries that are known.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.known.values().filter_map(|known| known.summary.as_ref()).map(|(_, summary)| summary)
    }

    fn versions_of(&self, node: NodeId) -> Versions {
        let known = self.known.get(&node);
        Versions {
            node,
            card: known.map_or(UnixMillis(0), |known| known.card.issued),
            summary: known
                .and_then(|known| known.summary.as_ref())
                .map_or(0, |(_, summary)| summary.version),
        }
    }

    /// A round's question: all versions, what this indexer says of itself, and news.
    pub(super) fn question(&self) -> Gossip {
        let versions = self.known.keys().map(|node| self.versions_of(*node));
        let own = self.known.get(&self.config.node);
        let own_summary = own.and_then(|known| known.summary.as_ref());
        let rumours = self.rumours.values().take(EVIDENCE_PER_MESSAGE);
        Gossip {
            versions: versions.take(VERSIONS_PER_MESSAGE).collect(),
            pulls: true,
            cards: own.map(|known| known.signed.clone()).into_iter().collect(),
            summaries: own_summary.map(|(signed, _)| signed.clone()).into_iter().collect(),
            evidence: rumours.map(|rumour| rumour.signed.clone()).collect(),
        }
    }

    /// Adds what is later here than `theirs`, and where `unnamed` what they don't name at all.
    fn fill(&mut self, gossip: &mut Gossip, theirs: &[Versions], unnamed: bool) {
        let named: std::collections::BTreeMap<_, _> =
            theirs.iter().map(|versions| (versions.node, *versions)).collect();
        // From a place of its own each time, so that what does not fit now comes with another.
        let skip = self.chance.below(self.known.len().max(1));
        let all = self.known.iter().skip(skip).chain(self.known.iter().take(skip));
        for (node, known) in all {
            let has = named.get(node).copied();
            if has.is_none() && !unnamed {
                continue;
            }
            let has_card = has.map_or(UnixMillis(0), |has| has.card);
            let is_told = known.is_heard || known.is_seen;
            if is_told && known.card.issued > has_card && gossip.cards.len() < CARDS_PER_MESSAGE {
                gossip.cards.push(known.signed.clone());
            }
            let has_summary = has.map_or(0, |has| has.summary);
            if let Some((signed, summary)) = &known.summary
                && is_told
                && summary.version > has_summary
                && gossip.summaries.len() < CARDS_PER_MESSAGE
            {
                gossip.summaries.push(signed.clone());
            }
        }
    }

    pub(super) fn on_answer(&mut self, now: UnixMillis, from: NodeId, answer: Gossip) {
        if !answer.is_bounded() {
            self.refused += 1;
            return;
        }
        let wanted = answer.versions.clone();
        self.take(now, answer);
        let Some(known) = self.known.get_mut(&from) else { return };
        (known.is_seen, known.silent) = (true, 0);
        let to = Box::new(known.card.addr.clone());
        let mut push = Gossip::default();
        self.fill(&mut push, &wanted, false);
        if !push.is_empty() {
            self.outputs.push_back(Output::Ask { to, gossip: Box::new(push) });
        }
    }

    /// Takes all that a message brings; cards first, because summaries need them.
    fn take(&mut self, now: UnixMillis, gossip: Gossip) {
        let mut refused = 0;
        for card in gossip.cards {
            refused += u64::from(self.take_card(now, card).is_err());
        }
        for summary in gossip.summaries {
            refused += u64::from(self.take_summary(now, summary).is_err());
        }
        for evidence in gossip.evidence {
            refused += u64::from(self.take_evidence(now, evidence).is_err());
        }
        self.refused += refused;
    }

    pub(super) fn take_card(
        &mut self,
        now: UnixMillis,
        signed: Signed<IndexerCard>,
    ) -> Result<(), GossipRefusal> {
        let node = signed.signer();
        if self.known.get(&node).is_some_and(|known| known.signed == signed) {
            return Ok(());
        }
        let domain = &self.config.domain;
        let card = signed.open(domain).map_err(|_| GossipRefusal::Node)?;
        let operator = card.check(domain, node, now)?;
        if let Some(known) = self.known.get_mut(&node) {
            if known.card.issued < card.issued {
                // Who moves to another region begins with a new summary.
                if known.card.region != card.region {
                    known.summary = None;
                }
                (known.signed, known.card, known.operator) = (signed, card, operator);
            }
            return Ok(());
        }
        self.make_room(node, operator)?;
        let is_own = node == self.config.node;
        let (is_heard, is_seen, silent, summary) = (is_own, is_own, 0, None);
        let known = Known { signed, card, operator, summary, is_heard, is_seen, silent };
        self.known.insert(node, known);
        Ok(())
    }

    /// Room for one more indexer: what has never answered gives way, what has does not.
    fn make_room(&mut self, node: NodeId, operator: AccountId) -> Result<(), GossipRefusal> {
        let is_seed = |node: &NodeId| self.config.seeds.iter().any(|seed| seed.node == *node);
        if node == self.config.node || is_seed(&node) {
            return Ok(());
        }
        if self.known.values().filter(|known| known.operator == operator).count()
            >= OPERATOR_INDEXERS_MAX
        {
            return Err(GossipRefusal::Bounds("indexers of one operator"));
        }
        let unseen = self.known.iter().filter(|(node, known)| !known.is_seen && !is_seed(node));
        let unseen: Vec<_> = unseen.map(|(node, _)| *node).collect();
        if unseen.len() < UNSEEN_MAX && self.known.len() < INDEXERS_MAX {
            return Ok(());
        }
        if unseen.is_empty() {
            return Err(GossipRefusal::Bounds("indexers"));
        }
        let given_up = unseen[self.chance.below(unseen.len())];
        self.known.remove(&given_up);
        Ok(())
    }

    pub(super) fn take_summary(
        &mut self,
        now: UnixMillis,
        signed: Signed<Summary>,
    ) -> Result<(), GossipRefusal> {
        let node = signed.signer();
        let Some(known) = self.known.get(&node) else { return Err(GossipRefusal::Node) };
        if known.summary.as_ref().is_some_and(|(kept, _)| *kept == signed) {
            return Ok(());
        }
        let summary = signed.open(&self.config.domain).map_err(|_| GossipRefusal::Node)?;
        summary.check(now)?;
        if summary.region != known.card.region {
            return Err(GossipRefusal::Bounds("another region than the card's"));
        }
        let version = known.summary.as_ref().map_or(0, |(_, kept)| kept.version);
        if summary.version > version
            && let Some(known) = self.known.get_mut(&node)
        {
            known.summary = Some((signed, summary));
        }
        Ok(())
    }

    pub(super) fn take_evidence(
        &mut self,
        now: UnixMillis,
        signed: Signed<Evidence>,
    ) -> Result<(), GossipRefusal> {
        let domain = &self.config.domain;
        let evidence = signed.open(domain).map_err(|_| GossipRefusal::Node)?;
        let account = evidence.check(domain, signed.signer(), now)?;
        let key = (evidence.day, account);
        if self.heard.get(&key).is_some_and(|heard| *heard >= evidence.issued) {
            return Ok(());
        }
        if self.outputs.len() >= EVIDENCE_WAITING_MAX {
            return Err(GossipRefusal::Bounds("reports at once"));
        }
        self.outputs.push_back(Output::Evidence(account, Box::new(evidence), Box::new(signed)));
        Ok(())
    }
}
