//! What a workload is reported to do within a minute, made one figure of each kind.

use std::mem::discriminant;

use welkin_proto::digest::Figures;

/// Reports of one minute.
///
/// The first says what kind of service it is; those of another kind are left out, and so is what is out
/// of bounds or comes after [`Self::REPORTS_MAX`]. Of a time or a share the lower median counts, of
/// failed requests the mean, and freezes are added up.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    list: Vec<Figures>,
}

impl Reports {
    /// The most reports of a minute.
    pub const REPORTS_MAX: usize = 256;

    /// Takes in a report.
    pub fn add(&mut self, figures: Figures) {
        let is_its = self.list.first().is_none_or(|of| discriminant(of) == discriminant(&figures));
        let is_sound = figures != Figures::None && figures.is_bounded();
        if is_its && is_sound && self.list.len() < Self::REPORTS_MAX {
            self.list.push(figures);
        }
    }

    /// What they come to; nothing where there was none. Begins a new minute.
    pub fn take(&mut self) -> Figures {
        let list = std::mem::take(&mut self.list);
        match list.first() {
            None | Some(Figures::None) => Figures::None,
            Some(Figures::Job { .. }) => job(&list),
            Some(Figures::Stream { .. }) => stream(&list),
            Some(Figures::Inference { .. }) => inference(&list),
        }
    }
}

fn job(list: &[Figures]) -> Figures {
    let said = list.iter().filter_map(|figures| match *figures {
        Figures::Job { throttled_milli, preempted_milli } => {
            Some((throttled_milli, preempted_milli))
        }
        Figures::None | Figures::Stream { .. } | Figures::Inference { .. } => None,
    });
    let said: Vec<_> = said.collect();
    Figures::Job {
        throttled_milli: median(said.iter().filter_map(|(throttled, _)| *throttled)),
        preempted_milli: median(said.iter().filter_map(|(_, preempted)| *preempted)),
    }
}

fn stream(list: &[Figures]) -> Figures {
    let said = list.iter().filter_map(|figures| match *figures {
        Figures::Stream { frame_rate_milli, resolution_milli, click_to_photon_ms, freezes_ms } => {
            Some((frame_rate_milli, resolution_milli, click_to_photon_ms, freezes_ms))
        }
        Figures::None | Figures::Job { .. } | Figures::Inference { .. } => None,
    });
    let said: Vec<_> = said.collect();
    let freezes: Vec<u32> =
        said.iter().filter_map(|(.., freezes)| freezes.map(u32::from)).collect();
    let frozen = freezes.iter().sum::<u32>().min(Figures::FREEZES_MS_MAX.into());
    Figures::Stream {
        frame_rate_milli: median(said.iter().filter_map(|(rate, ..)| *rate)),
        resolution_milli: median(said.iter().filter_map(|(_, pixels, ..)| *pixels)),
        click_to_photon_ms: median(said.iter().filter_map(|(_, _, photon, _)| *photon)),
        freezes_ms: u16::try_from(frozen).ok().filter(|_| !freezes.is_empty()),
    }
}

fn inference(list: &[Figures]) -> Figures {
    let said = list.iter().filter_map(|figures| match *figures {
        Figures::Inference { first_token_ms, tokens_milli, errors_milli } => {
            Some((first_token_ms, tokens_milli, errors_milli))
        }
        Figures::None | Figures::Job { .. } | Figures::Stream { .. } => None,
    });
    let said: Vec<_> = said.collect();
    let errors: Vec<u32> = said.iter().filter_map(|(.., errors)| errors.map(u32::from)).collect();
    let count = u32::try_from(errors.len()).unwrap_or(u32::MAX);
    let mean = errors.iter().sum::<u32>().checked_div(count);
    Figures::Inference {
        first_token_ms: median(said.iter().filter_map(|(first, ..)| *first)),
        tokens_milli: median(said.iter().filter_map(|(_, tokens, _)| *tokens)),
        errors_milli: mean.and_then(|mean| u16::try_from(mean).ok()),
    }
}

fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(first_token_ms: u32, errors_milli: u16) -> Figures {
        let errors_milli = Some(errors_milli);
        Figures::Inference {
            first_token_ms: Some(first_token_ms),
            tokens_milli: None,
            errors_milli,
        }
    }

    #[test]
    fn a_minute_is_the_median_of_times_and_the_mean_of_failures() {
        let mut reports = Reports::default();
        [request(100, 0), request(900, 1_000), request(200, 0), request(150, 0)]
            .into_iter()
            .for_each(|report| reports.add(report));
        // Of another kind, and out of bounds.
        reports.add(Figures::Job { throttled_milli: Some(1), preempted_milli: None });
        reports.add(request(1, 1_001));
        assert_eq!(reports.take(), request(150, 250));
        assert_eq!(reports.take(), Figures::None);
    }

    #[test]
    fn freezes_add_up_to_no_more_than_the_minute() {
        let mut reports = Reports::default();
        let frozen = |freezes_ms| Figures::Stream {
            frame_rate_milli: Some(900),
            resolution_milli: None,
            click_to_photon_ms: None,
            freezes_ms,
        };
        [Some(400), None, Some(59_900)].into_iter().for_each(|ms| reports.add(frozen(ms)));
        assert_eq!(reports.take(), frozen(Some(60_000)));
    }

    fn some_figures() -> impl Strategy<Value = Figures> {
        let share = || prop::option::of(0..1_100_u16);
        prop_oneof![
            Just(Figures::None),
            (share(), share()).prop_map(|(throttled_milli, preempted_milli)| Figures::Job {
                throttled_milli,
                preempted_milli
            }),
            (share(), share(), prop::option::of(any::<u16>()), prop::option::of(any::<u16>()))
                .prop_map(
                    |(frame_rate_milli, resolution_milli, click_to_photon_ms, freezes_ms)| {
                        Figures::Stream {
                            frame_rate_milli,
                            resolution_milli,
                            click_to_photon_ms,
                            freezes_ms,
                        }
                    }
                ),
            (prop::option::of(any::<u32>()), prop::option::of(any::<u16>()), share()).prop_map(
                |(first_token_ms, tokens_milli, errors_milli)| Figures::Inference {
                    first_token_ms,
                    tokens_milli,
                    errors_milli
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_reported_comes_to_something_bounded(
            all in prop::collection::vec(some_figures(), 0..400),
        ) {
            let mut reports = Reports::default();
            all.iter().for_each(|report| reports.add(*report));
            let is_sound = |report: &&Figures| **report != Figures::None && report.is_bounded();
            let first = all.iter().find(is_sound);
            let taken = reports.take();
            prop_assert!(taken.is_bounded());
            let kind = first.map_or(discriminant(&Figures::None), discriminant);
            prop_assert_eq!(discriminant(&taken), kind);
        }
    }
}
