//! Random histories: whatever happens, the fleet lists and finds what the naive reference does.

use proptest::prelude::*;

use super::reference::{Known, Reference};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Announce { host: u8, containers: Vec<ContainerOffer>, region: bool },
    Beat { host: u8, free: Vec<(u8, u32)>, spot: Vec<(u8, u32)>, is_draining: bool },
    Leave { host: u8 },
    Hold { host: u8, container: u8, offer: u8, buyer: u8, ms: u64 },
    Release { host: u8, container: u8, offer: u8 },
    Report { host: u8, container: u8, checker: u8, late: u64, is_online: bool },
    Expire,
}

const HOSTS: u8 = 5;
const CONTAINERS: u8 = 3;

fn some_offer() -> impl Strategy<Value = ContainerOffer> {
    let gpu = (0..3_usize, prop::sample::select(vec!["h100", "l4"]), 20..30_u64);
    let tier =
        prop::sample::select(vec![Tier::Process, Tier::Container, Tier::Container, Tier::Vm]);
    (0..CONTAINERS, 1..4_u32, 1..4_u64, 1..4_u32, gpu, tier).prop_map(
        |(number, slots, price, cores, (count, model, gib), tier)| {
            let mut offer = ContainerOffer { tier, ..offer(number, slots, price) };
            offer.resources.cpu_milli = cores * 1_000;
            offer.resources.gpus = gpus(count, model, gib);
            offer
        },
    )
}

/// What a container has and offers beyond its sizes.
fn some_terms() -> impl Strategy<Value = ContainerOffer> {
    let features =
        prop::sample::subsequence(vec![Feature::H264, Feature::Av1, Feature::Ipv6], 0..3);
    let driver = prop::option::of(prop::sample::select(vec![535, 550, 580]));
    let apps = prop::sample::subsequence(vec![app(1), app(2)], 0..3);
    let spot = prop::option::of(0..4_u64).prop_map(|micros| {
        micros.map(|micros| SpotTerms { price: price(micros), notice_seconds: 30 })
    });
    let reserved = prop::option::of(0..4_u64).prop_map(|micros| {
        micros.map(|micros| ReservedTerms {
            price: price(micros),
            term_seconds_min: 3_600,
            term_seconds_max: 86_400,
            grace_seconds: 1_800,
        })
    });
    (some_offer(), features, driver, apps, spot, reserved).prop_map(
        |(offer, features, driver, apps, spot, reserved)| ContainerOffer {
            features,
            driver,
            apps,
            spot,
            reserved,
            ..offer
        },
    )
}

fn app(number: u8) -> AppId {
    AppId::from_bytes([number; 16])
}

fn some_wish() -> impl Strategy<Value = Needs> {
    let capacity = prop::sample::select(vec![
        CapacityType::OnDemand,
        CapacityType::OnDemand,
        CapacityType::Spot,
        CapacityType::Reserved,
    ]);
    let policy = prop::sample::select(Policy::ALL.to_vec());
    let features = prop::sample::subsequence(vec![Feature::H264, Feature::Av1], 0..2);
    let driver = prop::option::weighted(0.2, prop::sample::select(vec![535, 550, 560]));
    let app = prop::option::of((1..4_u8).prop_map(app));
    let rtt = prop::option::weighted(0.2, 0..40_000_u32);
    (some_needs(), capacity, policy, features, driver, app, rtt, 0..6_u8).prop_map(
        |(needs, capacity, policy, features, driver_min, app, rtt_us_max, required)| Needs {
            capacity,
            policy,
            features,
            driver_min,
            app,
            rtt_us_max,
            is_app_required: required == 0,
            ..needs
        },
    )
}

/// Round trips to some regions, or to none.
fn some_trips() -> impl Strategy<Value = Vec<(Region, u32)>> {
    let regions = vec![Region::local(), "eu-west".parse().unwrap(), "mars".parse().unwrap()];
    let regions = prop::sample::subsequence(regions, 0..4);
    (regions, prop::collection::vec(0..50_000_u32, 3))
        .prop_map(|(regions, us)| regions.into_iter().zip(us).collect())
}

fn step() -> impl Strategy<Value = Step> {
    let (host, container) = (|| 0..HOSTS, || 0..CONTAINERS);
    let free = || prop::collection::vec((container(), 0..5_u32), 0..4);
    prop_oneof![
        2 => prop_oneof![5 => 0..4_000_u64, 1 => 0..150_000_u64, 1 => Just(12 * 3_600_000)]
            .prop_map(Step::Wait),
        3 => (host(), prop::collection::vec(some_terms(), 0..4), any::<bool>()).prop_map(
            |(host, containers, region)| Step::Announce { host, containers, region }
        ),
        4 => (host(), free(), free(), prop::bool::weighted(0.1)).prop_map(
            |(host, free, spot, is_draining)| Step::Beat { host, free, spot, is_draining }
        ),
        1 => host().prop_map(|host| Step::Leave { host }),
        4 => (host(), container(), 0..40_u8, 0..3_u8, 0..6_000_u64).prop_map(
            |(host, container, offer, buyer, ms)| Step::Hold { host, container, offer, buyer, ms }
        ),
        1 => (host(), container(), 0..40_u8)
            .prop_map(|(host, container, offer)| Step::Release { host, container, offer }),
        3 => (host(), container(), 0..4_u8, 0..4_u64, any::<bool>()).prop_map(
            |(host, container, checker, late, is_online)| Step::Report {
                host, container, checker, late, is_online
            }
        ),
        1 => Just(Step::Expire),
    ]
}

fn some_needs() -> impl Strategy<Value = Needs> {
    let gpu = prop::option::of(prop::sample::select(vec!["h100", "any:1..2", "l4:2", "24GB.."]));
    let tier = prop::sample::select(vec![Tier::None, Tier::Container, Tier::Vm]);
    let who = || prop::collection::vec((0..HOSTS).prop_map(account), 0..2);
    (gpu, 0..4_u32, tier, who(), who(), prop::option::of(0..4_u64), 0..6_u16, any::<bool>())
        .prop_map(|(gpu, cores, tier, allow, deny, most, score, here)| Needs {
            gpu: gpu.map(|text| text.parse().unwrap()),
            cpu_milli_min: cores * 1_000,
            isolation_min: tier,
            operators_allow: if here { allow } else { Vec::new() },
            operators_deny: deny,
            max_per_hour: most.map(Usd::from_micros),
            reliability_min_bp: score.saturating_sub(3) * 4_000,
            regions: if here { vec![Region::local()] } else { Vec::new() },
            ..small()
        })
}

struct World {
    fleet: Fleet,
    reference: Reference,
    now: u64,
    count: u64,
}

impl World {
    fn take(&mut self, step: Step) {
        self.count += 1;
        let now = UnixMillis(self.now);
        match step {
            Step::Wait(ms) => self.now += ms,
            Step::Announce { host, containers, region } => self.announce(host, containers, region),
            Step::Beat { host, free, spot, is_draining } => {
                self.beat(host, [&free, &spot], is_draining);
            }
            Step::Leave { host } => {
                self.fleet.leave(now, node(host));
                for known in self.known(host).filter(|known| !known.has_left) {
                    (known.has_left, known.heard) = (true, now.0);
                }
            }
            Step::Hold { host, container, offer, buyer, ms } => {
                let hold = hold_of(offer, container, buyer, self.now + ms);
                self.hold(node(host), hold);
            }
            Step::Release { host, container: of, offer } => {
                let offer = OfferId::from_bytes([offer; 16]);
                self.fleet.release_hold(now, node(host), container(of), offer);
                self.reference.holds.retain(|(held_by, hold)| {
                    (*held_by, hold.container, hold.offer) != (node(host), container(of), offer)
                });
            }
            Step::Report { host, container: of, checker, late, is_online } => {
                let finding =
                    if is_online { Finding::Online { rtt_us: 1 } } else { Finding::Malformed };
                let minute = (self.now / 60_000).saturating_sub(late);
                let (checker, host) = (node(100 + checker), node(host));
                self.report(Report {
                    checker,
                    host,
                    container: container(of),
                    minute,
                    finding,
                    turn: None,
                });
            }
            Step::Expire => {
                while self.fleet.expire(now) {}
                self.reference.known.retain(|known| now.0 - known.heard <= STALE_MS);
                self.reference.holds.retain(|(_, hold)| hold.expires > now);
            }
        }
    }

    fn known(&mut self, host: u8) -> impl Iterator<Item = &mut Known> {
        let known = self.reference.known.iter_mut();
        known.filter(move |known| known.capability.addr.node == node(host))
    }

    fn announce(&mut self, host: u8, mut containers: Vec<ContainerOffer>, region: bool) {
        containers.sort_by_key(|offer| offer.id);
        containers.dedup_by_key(|offer| offer.id);
        let mut capability = capability(host, self.count, containers);
        capability.expires = UnixMillis(u64::MAX);
        if region {
            capability.region = "eu-west".parse().unwrap();
        }
        let now = self.now;
        self.fleet.announce(UnixMillis(now), account(host), capability.clone()).unwrap();
        let before = self.known(host).find(|known| now - known.heard <= STALE_MS).cloned();
        let free = |offer: &ContainerOffer| {
            let place = before.as_ref().and_then(|known| {
                known.capability.containers.iter().position(|other| other.id == offer.id)
            });
            let known = before.as_ref().zip(place).map(|(known, place)| known.free[place]);
            known.map_or(offer.slots, |free| free.min(offer.slots))
        };
        let free: Vec<_> = capability.containers.iter().map(free).collect();
        let used = |(offer, free): (&ContainerOffer, &u32)| {
            let known = before.as_ref()?;
            let mut containers = known.capability.containers.iter();
            let place = containers.position(|other| other.id == offer.id)?;
            Some(known.spot_used[place].min(offer.slots - free))
        };
        let spot_used = capability.containers.iter().zip(&free).map(|two| used(two).unwrap_or(0));
        let known = Known {
            spot_used: spot_used.collect(),
            free,
            capability,
            operator: account(host),
            sequence: None,
            is_draining: before.as_ref().is_some_and(|known| known.is_draining),
            heard: now,
            has_left: false,
        };
        self.reference.known.retain(|known| known.capability.addr.node != node(host));
        self.reference.known.push(known);
    }

    fn beat(&mut self, host: u8, [free, spot]: [&[(u8, u32)]; 2], is_draining: bool) {
        let (now, sequence) = (self.now, self.count);
        let Some(known) = self.known(host).next() else {
            let refused = self.fleet.beat(UnixMillis(now), node(host), &beat(0, 0, free));
            assert_eq!(refused, Err(BeatRefusal::Unknown));
            return;
        };
        let revision = known.capability.revision;
        let spot = beat(0, 0, spot).free;
        let sent = Beat { draining: is_draining, spot, ..beat(revision, sequence, free) };
        let mut falls = Vec::new();
        let mut known = known.clone();
        if !known.has_left {
            let before = known.free.iter_mut().zip(&mut known.spot_used);
            for (offer, (before, used)) in known.capability.containers.iter().zip(before) {
                let said = sent.free.iter().rev().find(|(id, _)| *id == offer.id);
                let after = said.map_or(0, |(_, free)| (*free).min(offer.slots));
                if known.sequence.is_some() {
                    falls.push((offer.id, before.saturating_sub(after)));
                }
                *before = after;
                let said = sent.spot.iter().rev().find(|(id, _)| *id == offer.id);
                *used = said.map_or(0, |(_, used)| (*used).min(offer.slots - after));
            }
            known.sequence = Some(sequence);
            known.is_draining = is_draining;
            known.heard = now;
        }
        let taken = self.fleet.beat(UnixMillis(now), node(host), &sent);
        assert_eq!(taken.is_ok(), !known.has_left);
        *self.known(host).next().unwrap() = known;
        for (id, count) in falls {
            let mut kept = self.reference.kept(now, node(host), id);
            kept.sort_by_key(|hold| (hold.expires, hold.offer));
            for gone in kept.iter().take(usize::try_from(count).unwrap()) {
                self.reference.holds.retain(|(by, hold)| *by != node(host) || hold != gone);
            }
        }
    }

    fn hold(&mut self, host: NodeId, hold: Hold) {
        let free = |besides| {
            let rows = self.reference.rows(self.now, besides, CapacityType::OnDemand);
            let mut rows = rows.into_iter().filter(|row| row.addr.node == host);
            rows.find(|row| row.container.id == hold.container).map_or(0, |row| row.free)
        };
        // Every search before has cleared the holds that had ended.
        let kept = self.reference.kept(self.now, host, hold.container);
        let is_new = !kept.iter().any(|kept| kept.offer == hold.offer);
        let is_replacing = free(None) == 0;
        let fits = free(Some(hold.buyer)) > 0 && is_new && hold.expires.0 > self.now;
        let kept = self.fleet.hold(UnixMillis(self.now), host, hold);
        assert_eq!(kept.is_ok(), fits, "{kept:?}");
        if fits && is_replacing {
            let mut own = self.reference.kept(self.now, host, hold.container);
            own.retain(|kept| kept.buyer == hold.buyer);
            own.sort_by_key(|kept| (kept.expires, kept.offer));
            self.reference.holds.retain(|(by, kept)| *by != host || *kept != own[0]);
        }
        self.reference.holds.extend(fits.then_some((host, hold)));
    }

    fn report(&mut self, report: Report) {
        let rows = self.reference.rows(self.now, None, CapacityType::OnDemand);
        let is_known = rows
            .iter()
            .any(|row| row.addr.node == report.host && row.container.id == report.container);
        let is_new = !self.reference.reports.iter().any(|known| {
            (known.checker, known.host, known.container, known.minute)
                == (report.checker, report.host, report.container, report.minute)
        });
        let is_fresh = report.minute + crate::LATE_MINUTES_MAX >= self.now / 60_000;
        let taken = self.fleet.report(UnixMillis(self.now), &report);
        assert_eq!(taken.is_ok(), is_known && is_new && is_fresh, "{taken:?}");
        self.reference.reports.extend(taken.is_ok().then_some(report));
    }

    fn check(
        &mut self,
        needs: &Needs,
        trips: &[(Region, u32)],
        exclude: &[NodeId],
        count: u8,
        tie: u64,
    ) {
        let now = UnixMillis(self.now);
        let mut listing = self.fleet.listing(now, None, 1_000);
        listing.sort_by_key(|row| (row.addr.node, row.container.id));
        assert_eq!(listing, self.reference.rows(self.now, None, CapacityType::OnDemand));
        let query = Query {
            needs,
            exclude,
            buyer: account(tie.to_be_bytes()[0] % 4),
            count,
            tie,
            round_trips_us: trips,
        };
        let found = match self.fleet.find(now, &query) {
            Found::Candidates(found) => Ok(found.into_iter().map(|c| c.listing).collect()),
            Found::WhyNot(why) => Err(why),
        };
        assert_eq!(found, self.reference.find(self.now, &query));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_fleet_finds_what_a_scan_finds(
        steps in prop::collection::vec((step(), some_wish(), 0..5_u8, any::<u64>()), 1..80),
        trips in some_trips(),
        exclude in prop::collection::vec((0..HOSTS).prop_map(node), 0..2),
    ) {
        let (fleet, reference) = Default::default();
        let mut world = World { fleet, reference, now: 1_000_000_000, count: 0 };
        for (step, needs, count, tie) in steps {
            world.take(step);
            world.check(&needs, &trips, &exclude, count, tie);
        }
    }
}
