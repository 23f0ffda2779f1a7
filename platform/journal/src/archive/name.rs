//! Names of sealed objects. A name says whose rows are in it, of which day, table and partition, under which ownership it was written, and which ends
//! of workflows it covers; nothing that a user wrote.

use std::fmt;
use std::str::FromStr;

use gantry_proto::{PartitionId, TenantId};

use crate::store::Epoch;

/// A day in UTC: days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

/// Milliseconds of a day.
pub const DAY_MS: u64 = 24 * 3_600_000;

impl Day {
    /// The day of a time.
    #[must_use]
    pub fn of_ms(ms: u64) -> Self {
        Self(u32::try_from(ms / DAY_MS).unwrap_or(u32::MAX))
    }

    /// The first millisecond of the day after.
    #[must_use]
    pub fn end_ms(self) -> u64 {
        (u64::from(self.0) + 1) * DAY_MS
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Years of 400 have the same number of days; March is the first month, so that a leap day is the last one.
        let days = u64::from(self.0) + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// The name of an object: `archive/<tenant>/<day>/<table>/<partition>-<epoch>-<from>-<to>-<generation>.parquet`, numbers in hexadecimal of fixed width.
///
/// No two objects with different content have the same name: one owner (epoch) seals each range once, and whoever rewrites objects takes a generation
/// greater than all of theirs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Whose rows.
    pub tenant: TenantId,
    /// Day on which the workflows in it ended.
    pub day: Day,
    /// Which table.
    pub table: String,
    /// Which partition's.
    pub partition: PartitionId,
    /// Ownership of the partition under which it was written.
    pub epoch: Epoch,
    /// Position of the first end of a workflow that it covers.
    pub from_seq: u64,
    /// Position of the last one.
    pub to_seq: u64,
    /// 0 as it was sealed; more when it was made of others.
    pub generation: u32,
}

/// What all objects of the archive begin with.
pub const ROOT: &str = "archive";

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{ROOT}/{}/{}/{}/{:03x}-{:016x}-{:016x}-{:016x}-{:08x}.parquet",
            self.tenant,
            self.day,
            self.table,
            self.partition.index(),
            self.epoch.0,
            self.from_seq,
            self.to_seq,
            self.generation
        )
    }
}

/// An object whose name is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a sealed object")]
pub struct NotAnObject(pub String);

impl FromStr for ObjectName {
    type Err = NotAnObject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || -> Option<Self> {
            let mut parts = text.strip_prefix(ROOT)?.strip_prefix('/')?.split('/');
            let tenant = parts.next()?.parse().ok()?;
            let day = parse_day(parts.next()?)?;
            let table = parts.next()?.to_owned();
            let mut numbers = parts.next()?.strip_suffix(".parquet")?.split('-');
            let mut number = || u64::from_str_radix(numbers.next()?, 16).ok();
            let name = Self {
                tenant,
                day,
                table,
                partition: PartitionId::new(u16::try_from(number()?).ok()?)?,
                epoch: Epoch(number()?),
                from_seq: number()?,
                to_seq: number()?,
                generation: u32::try_from(number()?).ok()?,
            };
            // Only what is written exactly so is ours.
            (parts.next().is_none() && name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| NotAnObject(text.to_owned()))
    }
}

fn parse_day(text: &str) -> Option<Day> {
    let mut parts = text.split('-');
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (year, month, day) = (number()?, number()?, number()?);
    if !(1..=12).contains(&month) {
        return None;
    }
    let (year, shifted) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    u32::try_from(era * 146_097 + of_era - 719_468).ok().map(Day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (951_868_799_999, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (4_107_542_400_000, "2100-03-01"),
            (1_795_219_200_000, "2026-11-21"),
        ] {
            assert_eq!(Day::of_ms(ms).to_string(), text);
            assert_eq!(parse_day(text), Some(Day::of_ms(ms)));
        }
        for day in (0..60_000).map(Day) {
            assert_eq!(parse_day(&day.to_string()), Some(day));
        }
        assert_eq!(Day(0).end_ms(), DAY_MS);
    }

    #[test]
    fn names_parse_back_and_others_are_refused() {
        let name = ObjectName {
            tenant: TenantId::from_bytes([7; 16]),
            day: Day(20_000),
            table: "events".to_owned(),
            partition: PartitionId::new(4_095).unwrap(),
            epoch: Epoch(3),
            from_seq: 1,
            to_seq: u64::MAX,
            generation: 2,
        };
        let text = name.to_string();
        assert_eq!(text.parse(), Ok(name));
        for other in [
            text.replace("-0000000000000003-", "-3-"),
            format!("{text}/x"),
            text.replace("archive/", ""),
        ] {
            assert_eq!(other.parse::<ObjectName>(), Err(NotAnObject(other.clone())));
        }
    }
}
