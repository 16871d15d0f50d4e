//! The table as Markdown.

use std::fmt::{self, Display, Formatter};

use super::{Row, Table};

/// Thousandths as a number with two places.
struct Milli(i64);

impl Display for Milli {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (sign, size) = (if self.0 < 0 { "−" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}.{:02}", size / 1_000, size % 1_000 / 10)
    }
}

/// Thousandths as percent, without places that say nothing.
struct Percent(u64);

impl Display for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 % 10 {
            0 => write!(f, "{}", self.0 / 10),
            rest => write!(f, "{}.{rest}", self.0 / 10),
        }
    }
}

/// A time for people.
fn time(seconds: Option<u32>) -> String {
    match seconds {
        None => "never".to_owned(),
        Some(s @ ..600) => format!("{s} s"),
        Some(s @ ..10_800) => format!("{} min", s / 60),
        Some(s @ ..172_800) => format!("{}.{} h", s / 3_600, s % 3_600 / 360),
        Some(s) => format!("{}.{} d", s / 86_400, s % 86_400 / 8_640),
    }
}

fn row(row: &Row) -> String {
    let [hour, day, all] = row.found_permille.map(|found| Percent(found.into()));
    let assigned = row.assigned.map_or("–", |assigned| assigned.as_str());
    let net = row.net_milli.map_or("–".to_owned(), |net| Milli(net).to_string());
    let verdict = match (row.pays(), row.known) {
        (true, Some(why)) => format!("**pays**: {why}"),
        (true, None) => "**pays**".to_owned(),
        (false, Some(why)) => why.to_owned(),
        (false, None) => String::new(),
    };
    let (name, variant) = (row.attack, row.variant);
    let (taken, median) = (Milli(row.taken_milli), time(row.median_seconds));
    format!(
        "| {name} | {variant} | {assigned} | {hour} | {day} | {all} | {median} | {taken} | {net} | {verdict} |"
    )
}

impl Table {
    /// The tables of the documentation.
    pub fn markdown(&self) -> String {
        let config = self.config;
        let mut lines = vec![
            format!(
                "Seed {}, {} trials of {} days each, {} licences, committees of 3.",
                config.seed, config.trials, config.days, config.licences
            ),
            String::new(),
            "### Hosts that cheat".to_owned(),
            String::new(),
        ];
        lines.push(
            "| attack | variant | assignment | found in 1 h, % | 1 day, % | the run, % | median | taken | net gain | |"
                .to_owned(),
        );
        lines
            .push("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |".to_owned());
        lines.extend(self.rows.iter().map(row));
        self.honest_hosts(&mut lines);
        self.committees(&mut lines);
        self.checkers(&mut lines);
        self.others(&mut lines);
        lines.join("\n") + "\n"
    }

    fn honest_hosts(&self, lines: &mut Vec<String>) {
        section(
            lines,
            "Honest hosts on bad networks",
            "| network | assignment | challenged | host days | class not proven, % of days | hours found offline, % | hosts charged for it, of | charged with fraud |",
        );
        for honest in &self.honest {
            let days = u64::from(honest.host_days.max(1));
            lines.push(format!(
                "| {} | {} | {} | {} | {} | {} | {}, {} | {} |",
                honest.network,
                honest.assigned.as_str(),
                if honest.asked_once { "once" } else { "thrice" },
                honest.host_days,
                Percent(u64::from(honest.days_lowered) * 1_000 / days),
                Percent(u64::from(honest.hours_offline) * 1_000 / days / 24),
                honest.charged_offline,
                honest.hosts,
                honest.charged_fraud,
            ));
        }
    }

    fn committees(&self, lines: &mut Vec<String>) {
        section(
            lines,
            "Liars in a committee",
            "| of 2N + 1 | liars f | days | honest host: charges | hours found offline | days without its class | pretender: days believed |",
        );
        for committee in &self.committees {
            let size = 2 * committee.n + 1;
            lines.push(format!(
                "| {size} | {} | {} | {} | {} | {} | {} |",
                committee.liars,
                committee.days,
                committee.slashed,
                committee.hours_offline,
                committee.days_lowered,
                committee.days_believed,
            ));
        }
        section(
            lines,
            "A majority of liars in one drawn committee, %",
            "| of 2N + 1 | 10 % of the pool | 20 % | 33 % |",
        );
        for three in self.majorities.chunks(3) {
            let size = three.first().map_or(0, |(n, ..)| 2 * n + 1);
            let shares = three.iter().map(|(.., ppm)| Milli(i64::from(*ppm) / 10).to_string());
            lines.push(format!("| {size} | {} |", shares.collect::<Vec<_>>().join(" | ")));
        }
    }

    fn checkers(&self, lines: &mut Vec<String>) {
        section(
            lines,
            "Checkers that do not check",
            "| checker | paid, % of an honest one | its outliers, % | honest outliers, % | hours taken from its victim | charges |",
        );
        for (name, _, paid) in &self.checkers {
            lines.push(format!(
                "| {name} | {} | {} | {} | {} | {} |",
                Percent(paid.paid_permille),
                Percent(paid.outlier_permille),
                Percent(paid.honest_outlier_permille),
                paid.victim_hours,
                paid.victim_slashed,
            ));
        }
    }

    fn others(&self, lines: &mut Vec<String>) {
        section(
            lines,
            "Claims of place by a host in Frankfurt",
            "| claimed | liars, % of the pool | first refuted by a minute's committee | refuting, % of a day's sightings | more than half |",
        );
        for (city, percent, claim) in &self.claims {
            let first = time(claim.refuted_minute.map(|minute| minute * 60));
            let all = if claim.refuted_by_all { "yes" } else { "no" };
            let against = Percent(claim.against_permille);
            lines.push(format!("| {city} | {percent} | {first} | {against} | {all} |"));
        }
        section(
            lines,
            "An indexer that favours its operator, who has 20 % of what fits",
            "| offers its own, % | questions an hour | marked after | share of questions on the last day, % (fair: 25) | its hosts' share of matches, % (fair: 20) | honest ones marked |",
        );
        for (own, an_hour, favour) in &self.indexers {
            lines.push(format!(
                "| {own} | {an_hour} | {} | {} | {} | {} |",
                time(favour.marked_second),
                Percent(favour.asked_permille),
                Percent(favour.own_permille),
                favour.wrongly_marked,
            ));
        }
        section(
            lines,
            "Buyers that blame an honest host",
            "| sessions blamed, % | mean quality, % | earned, % of an honest twin | grade falls after, sessions | charges | charges refused |",
        );
        for (percent, served) in &self.blamed {
            let session = served.found_session.map_or("never".to_owned(), |s| s.to_string());
            lines.push(format!(
                "| {percent} | {} | {} | {session} | {} | {} |",
                Percent(served.quality_permille),
                Percent(served.earned_permille),
                served.charged,
                served.refused,
            ));
        }
    }
}

/// A heading and the head of a table.
fn section(lines: &mut Vec<String>, title: &str, head: &str) {
    let columns = head.matches('|').count().saturating_sub(2);
    let rule = format!("| --- |{}", " ---: |".repeat(columns));
    lines.extend([String::new(), format!("### {title}"), String::new(), head.to_owned(), rule]);
}
