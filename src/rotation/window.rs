//! The times of the week at which rotations may begin, by the clocks of a place. Pure.
//!
//! A window is open whenever the place's clock shows a time in it: one that lies in the hour that clocks skip in spring does not
//! open that day, and one in the hour that they repeat in autumn opens twice.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::api::{Day, RotationWindow};

/// Days that are looked through for an opening: a week from any hour, and one more for the day that a clock change may skip.
const HORIZON: i32 = 15;
const MINUTES_A_DAY: u16 = 24 * 60;

/// A time of the week.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Window {
    /// Days on which it opens.
    days: Vec<Weekday>,
    /// Minute of the day at which it opens.
    from: u16,
    /// Minute at which it closes, of the next day where it is not later.
    to: u16,
    zone: TimeZone,
}

impl Window {
    /// Reads it as the API has it. The error is a sentence that says what to write instead.
    pub fn parse(window: &RotationWindow) -> Result<Self, String> {
        let RotationWindow { from, to, .. } = window;
        let minute = |text: &str| {
            minute(text).ok_or_else(|| {
                format!("{text:?} is not a time of day; write hours and minutes, such as 22:00")
            })
        };
        let zone = TimeZone::get(&window.time_zone).map_err(|_| {
            format!(
                "{:?} is not a time zone that is known here; write its IANA name, such as Europe/Berlin",
                window.time_zone
            )
        })?;
        let every_day = Weekday::Monday.cycle_forward().take(7);
        let days: Vec<Weekday> = match &window.days {
            Some(days) => days.iter().copied().map(weekday).collect(),
            None => every_day.collect(),
        };
        let window = Self {
            days,
            from: minute(from)?,
            to: minute(to)?,
            zone,
        };
        if window.from == MINUTES_A_DAY {
            return Err(format!("{from:?} is the end of a day; write 00:00"));
        }
        if window.days.is_empty() || window.from == window.to {
            return Err(format!(
                "the window from {from} to {to} is never open; give it days and a length"
            ));
        }
        Ok(window)
    }

    /// Whether it is open.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let clock = now.to_zoned(self.zone.clone());
        let minute =
            u16::from(clock.hour().unsigned_abs()) * 60 + u16::from(clock.minute().unsigned_abs());
        let opens_on = |day| self.days.contains(&day);
        let today = clock.weekday();
        if self.from < self.to {
            opens_on(today) && (self.from..self.to).contains(&minute)
        } else {
            (opens_on(today) && minute >= self.from)
                || (opens_on(today.previous()) && minute < self.to)
        }
    }

    /// When it opens next. None only where the clocks would have to go on for longer than time does.
    fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(self.zone.clone()).date();
        (-1..HORIZON)
            .filter_map(|days| today.checked_add(days.days()).ok())
            .filter(|date| self.days.contains(&date.weekday()))
            .flat_map(|date| self.openings(date))
            .filter(|opening| *opening > now && self.is_open(*opening))
            .min()
    }

    /// The moments at which it may open on a day: when the clock shows `from` (once, twice, or, where it skips that, when it is put
    /// forward), and when it is put back into the window.
    fn openings(&self, date: Date) -> Vec<Timestamp> {
        let (hour, minute) = ((self.from / 60) as i8, (self.from % 60) as i8);
        let from = self
            .zone
            .to_ambiguous_timestamp(date.at(hour, minute, 0, 0));
        let (Ok(earlier), Ok(later)) = (from.earlier(), from.later()) else {
            return Vec::new();
        };
        // From a day before, since a window across midnight is open into the next day.
        let changes = self.zone.following(earlier).take(2);
        let changes = changes.map(|change| change.timestamp());
        [earlier, later].into_iter().chain(changes).collect()
    }
}

/// Whether one of the windows is open; no windows are always open.
pub fn is_open(windows: &[Window], now: Timestamp) -> bool {
    windows.is_empty() || windows.iter().any(|window| window.is_open(now))
}

/// When the next of the windows opens.
pub fn next_opening(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    let openings = windows.iter().filter_map(|window| window.next_opening(now));
    openings.min()
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && minute <= MINUTES_A_DAY).then_some(minute)
}

fn weekday(day: Day) -> Weekday {
    match day {
        Day::Monday => Weekday::Monday,
        Day::Tuesday => Weekday::Tuesday,
        Day::Wednesday => Weekday::Wednesday,
        Day::Thursday => Weekday::Thursday,
        Day::Friday => Weekday::Friday,
        Day::Saturday => Weekday::Saturday,
        Day::Sunday => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    fn window(days: Option<Vec<Day>>, from: &str, to: &str, zone: &str) -> Window {
        let window = RotationWindow {
            days,
            from: from.to_owned(),
            to: to.to_owned(),
            time_zone: zone.to_owned(),
        };
        Window::parse(&window).expect("a window")
    }

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    #[test]
    fn a_window_is_open_between_its_times_on_its_days() {
        let window = window(Some(vec![Day::Tuesday]), "09:00", "17:30", "Europe/Berlin");
        // A Tuesday in winter, an hour ahead of UTC.
        for (time, open) in [
            ("2026-01-06T07:59:59Z", false),
            ("2026-01-06T08:00:00Z", true),
            ("2026-01-06T16:29:59Z", true),
            ("2026-01-06T16:30:00Z", false),
            ("2026-01-07T12:00:00Z", false),
        ] {
            assert_eq!(window.is_open(at(time)), open, "{time}");
        }
        let next = window.next_opening(at("2026-01-06T12:00:00Z"));
        assert_eq!(next, Some(at("2026-01-13T08:00:00Z")));
    }

    #[test]
    fn a_window_across_midnight_belongs_to_the_day_on_which_it_opens() {
        let window = window(Some(vec![Day::Saturday]), "22:00", "04:00", "UTC");
        for (time, open) in [
            ("2026-01-10T03:00:00Z", false),
            ("2026-01-10T22:00:00Z", true),
            ("2026-01-11T03:59:00Z", true),
            ("2026-01-11T04:00:00Z", false),
            ("2026-01-11T22:00:00Z", false),
        ] {
            assert_eq!(window.is_open(at(time)), open, "{time}");
        }
    }

    #[test]
    fn the_end_of_the_day_can_be_written_both_ways() {
        for to in ["24:00", "00:00"] {
            let window = window(Some(vec![Day::Monday]), "12:00", to, "UTC");
            assert!(window.is_open(at("2026-01-05T23:59:59Z")), "{to}");
            assert!(!window.is_open(at("2026-01-06T00:00:00Z")), "{to}");
        }
    }

    #[test]
    fn a_time_that_clocks_skip_does_not_come() {
        // On 2026-03-29 clocks in Berlin go from 02:00 to 03:00, at 01:00 UTC.
        let within = window(None, "02:15", "02:45", "Europe/Berlin");
        let before = at("2026-03-29T00:30:00Z");
        assert_eq!(
            within.next_opening(before),
            Some(at("2026-03-30T00:15:00Z"))
        );
        let beyond = window(None, "02:15", "04:00", "Europe/Berlin");
        assert_eq!(
            beyond.next_opening(before),
            Some(at("2026-03-29T01:00:00Z"))
        );
    }

    #[test]
    fn a_time_that_clocks_repeat_comes_twice() {
        // On 2026-10-25 clocks in Berlin go from 03:00 to 02:00, at 01:00 UTC.
        let window = window(None, "02:15", "02:45", "Europe/Berlin");
        let first = window.next_opening(at("2026-10-24T12:00:00Z"));
        assert_eq!(first, Some(at("2026-10-25T00:15:00Z")));
        let second = window.next_opening(at("2026-10-25T00:15:00Z"));
        assert_eq!(second, Some(at("2026-10-25T01:15:00Z")));
    }

    #[test]
    fn what_can_not_be_meant_is_an_error() {
        let written = |days: Option<Vec<Day>>, from: &str, to: &str, zone: &str| {
            Window::parse(&RotationWindow {
                days,
                from: from.to_owned(),
                to: to.to_owned(),
                time_zone: zone.to_owned(),
            })
            .expect_err("an error")
        };
        assert!(written(None, "10:00", "10:00", "UTC").contains("never open"));
        assert!(written(Some(Vec::new()), "10:00", "11:00", "UTC").contains("never open"));
        assert!(written(None, "10:00", "11:00", "Europe/Berlim").contains("Europe/Berlim"));
        assert!(written(None, "24:00", "11:00", "UTC").contains("write 00:00"));
        for time in ["24:01", "7", "10:60", "-1:00", "99999:00"] {
            assert!(written(None, time, "11:00", "UTC").contains("time of day"));
        }
    }

    proptest! {
        /// The next opening is the first minute that is open after one that is not, as walking through the minutes finds it.
        #[test]
        fn the_next_opening_is_what_a_clock_would_show(
            from in 0u16..1440,
            length in 1u16..1440,
            days in proptest::sample::subsequence(vec![
                Day::Monday, Day::Tuesday, Day::Wednesday, Day::Thursday, Day::Friday, Day::Saturday, Day::Sunday,
            ], 1..=7),
            zone in proptest::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns",
            ]),
            // About the clock changes of a year, and between them.
            start in proptest::sample::select(vec![
                "2026-01-15T00:00:00Z", "2026-03-07T12:00:00Z", "2026-03-28T12:00:00Z", "2026-04-04T06:00:00Z",
                "2026-10-03T06:00:00Z", "2026-10-24T12:00:00Z", "2026-10-31T12:00:00Z",
            ]),
            minutes in 0i64..2880,
        ) {
            let to = (from + length) % 1440;
            let text = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
            let window = window(Some(days), &text(from), &text(to), zone);
            let now = at(start) + SignedDuration::from_mins(minutes);
            let mut expected = now;
            let mut was_open = window.is_open(now);
            loop {
                expected += SignedDuration::from_mins(1);
                let open = window.is_open(expected);
                if open && !was_open {
                    break;
                }
                was_open = open;
            }
            prop_assert!(window.next_opening(now).is_some_and(|opening| opening <= expected));
            if !window.is_open(now) {
                prop_assert_eq!(window.next_opening(now), Some(expected));
            }
        }
    }
}
