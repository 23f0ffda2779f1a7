//! The times of a cron pattern in a time zone. Pure: the zones' rules are compiled in, so that every machine sees the same times.

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Direction};
use gantry_proto::ScheduleId;
use gantry_proto::v1::ScheduleNext;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Why a calendar cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The pattern does not parse.
    #[error(
        "`{pattern}` is no cron pattern ({why}); write five fields, minute hour day month weekday, such as `30 6 * * MON-FRI`, or six with seconds first"
    )]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such time zone.
    #[error("`{0}` is no time zone; write an IANA name such as `Europe/Berlin` or `UTC`")]
    TimeZone(String),
    /// The pattern parses and names no time that will come, such as 30 February.
    #[error("`{0}` names no time that will ever come")]
    Never(String),
}

/// A pattern in a zone.
#[derive(Debug, Clone)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

impl Calendar {
    /// Parses both.
    ///
    /// # Errors
    /// See [`CalendarError`].
    pub fn new(pattern: &str, zone: &str) -> Result<Self, CalendarError> {
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(pattern).map_err(|error| CalendarError::Pattern {
            pattern: pattern.to_owned(),
            why: error.to_string(),
        })?;
        let zone = TimeZone::get(zone).map_err(|_| CalendarError::TimeZone(zone.to_owned()))?;
        Ok(Self { cron, zone })
    }

    fn at(&self, at_ms: u64) -> Option<Zoned> {
        let timestamp = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
        Some(timestamp.to_zoned(self.zone.clone()))
    }

    /// The first time after `after_ms`; `None` when none will come. A time that a change of the clock leaves out comes right after the gap; one that comes twice counts once.
    #[must_use]
    pub fn next(&self, after_ms: u64) -> Option<u64> {
        let next = self.cron.find_next_occurrence(&self.at(after_ms)?, false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }

    /// Times in `from_ms..=to_ms`, at most `max`.
    #[must_use]
    pub fn between(&self, from_ms: u64, to_ms: u64, max: usize) -> Vec<u64> {
        let Some(from) = self.at(from_ms) else {
            return Vec::new();
        };
        croner::CronIterator::new(self.cron.clone(), from, true, Direction::Forward)
            .map_while(|each: Zoned| u64::try_from(each.timestamp().as_millisecond()).ok())
            .take_while(|each| *each <= to_ms)
            .take(max)
            .collect()
    }
}

/// When a schedule fires for the first time after `after_ms`: the calendar's time, and the same with the jitter that this schedule has for it.
#[must_use]
pub fn next(calendar: &Calendar, schedule: ScheduleId, jitter_ms: u64, after_ms: u64) -> Option<ScheduleNext> {
    let due_ms = calendar.next(after_ms)?;
    Some(ScheduleNext {
        due_ms,
        fire_ms: due_ms.saturating_add(jitter(schedule, jitter_ms, due_ms)),
    })
}

/// Spread over `0..jitter_ms`, and the same whenever it is asked.
#[must_use]
pub fn jitter(schedule: ScheduleId, jitter_ms: u64, due_ms: u64) -> u64 {
    if jitter_ms == 0 {
        return 0;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(schedule.as_bytes()).update(&due_ms.to_be_bytes());
    let mut number = [0; 8];
    number.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(number) % jitter_ms
}

#[cfg(test)]
mod tests {
    use gantry_proto::PartitionId;

    use super::*;

    fn ms(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    fn text(ms: u64) -> String {
        Timestamp::from_millisecond(i64::try_from(ms).unwrap())
            .unwrap()
            .to_string()
    }

    #[test]
    fn hours_are_those_of_the_zone_through_the_year() {
        let calendar = Calendar::new("30 6 * * *", "Europe/Berlin").unwrap();
        assert_eq!(
            text(calendar.next(ms("2026-01-10T00:00:00Z")).unwrap()),
            "2026-01-10T05:30:00Z"
        );
        assert_eq!(
            text(calendar.next(ms("2026-07-10T00:00:00Z")).unwrap()),
            "2026-07-10T04:30:00Z"
        );
        let seconds = Calendar::new("*/10 * * * * *", "UTC").unwrap();
        assert_eq!(
            text(seconds.next(ms("2026-01-10T00:00:00Z")).unwrap()),
            "2026-01-10T00:00:10Z"
        );
    }

    #[test]
    fn an_hour_that_is_left_out_is_not_lost_and_one_that_comes_twice_counts_once() {
        // In Berlin 02:30 does not exist on 29 March 2026, and exists twice on 25 October.
        let calendar = Calendar::new("30 2 * * *", "Europe/Berlin").unwrap();
        let spring = calendar.between(ms("2026-03-28T12:00:00Z"), ms("2026-03-30T12:00:00Z"), 10);
        assert_eq!(
            spring.len(),
            2,
            "{:?}",
            spring.iter().map(|at| text(*at)).collect::<Vec<_>>()
        );
        let autumn = calendar.between(ms("2026-10-24T12:00:00Z"), ms("2026-10-26T12:00:00Z"), 10);
        assert_eq!(
            autumn.len(),
            2,
            "{:?}",
            autumn.iter().map(|at| text(*at)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_range_is_bounded_and_has_both_ends() {
        let calendar = Calendar::new("0 * * * *", "UTC").unwrap();
        let times = calendar.between(ms("2026-01-01T00:00:00Z"), ms("2026-01-01T03:00:00Z"), 100);
        assert_eq!(times.len(), 4);
        assert_eq!(
            calendar
                .between(ms("2026-01-01T00:00:00Z"), ms("2027-01-01T00:00:00Z"), 7)
                .len(),
            7
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let why = |pattern, zone| Calendar::new(pattern, zone).unwrap_err().to_string();
        assert!(why("61 * * * *", "UTC").contains("61 * * * *"));
        assert!(why("* * *", "UTC").contains("five fields"));
        assert!(why("* * * * *", "Mars/Olympus").contains("Mars/Olympus"));
        assert_eq!(
            Calendar::new("0 0 30 2 *", "UTC").unwrap().next(0),
            None,
            "30 February never comes"
        );
    }

    #[test]
    fn jitter_is_stable_and_bounded() {
        let id = ScheduleId::new(1, PartitionId::default(), 1);
        let drawn: Vec<u64> = (0..100).map(|due| jitter(id, 1_000, due)).collect();
        assert_eq!(drawn, (0..100).map(|due| jitter(id, 1_000, due)).collect::<Vec<_>>());
        assert!(drawn.iter().all(|each| *each < 1_000));
        assert!(drawn.iter().max() > drawn.iter().min());
        assert_eq!(jitter(id, 0, 7), 0);
    }
}
