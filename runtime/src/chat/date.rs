//! Today, for templates that tell the model what day it is.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// Longest format.
const MAX_FORMAT: usize = 1000;

/// A moment in UTC, in the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    /// From 0.
    day_of_year: u64,
    /// From 0, Monday.
    weekday: usize,
    second_of_day: u64,
}

impl Date {
    /// From seconds since the beginning of 1970.
    pub(super) fn from_unix(seconds: u64) -> Self {
        let days = seconds / 86_400;
        let (mut year, mut day) = (1970 + days / 146_097 * 400, days % 146_097);
        while day >= year_days(year) {
            day -= year_days(year);
            year += 1;
        }
        let (mut month, mut day_of_month) = (0, day);
        while day_of_month >= month_days(year, month) {
            day_of_month -= month_days(year, month);
            month += 1;
        }
        // The first day of 1970 was a Thursday.
        let weekday = usize::try_from((days + 3) % 7).unwrap_or(0);
        Self { year, month, day: day_of_month + 1, day_of_year: day, weekday, second_of_day: seconds % 86_400 }
    }

    /// As C's `strftime` in its C locale; `None` for a directive that is not known here, or too long a format.
    pub(super) fn format(&self, format: &str) -> Option<String> {
        if format.len() > MAX_FORMAT {
            return None;
        }
        let (hour, minute, second) = (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let (month, weekday) = (MONTHS.get(self.month)?, DAYS.get(self.weekday)?);
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            out.push_str(&match chars.next()? {
                'Y' => self.year.to_string(),
                'y' => format!("{:02}", self.year % 100),
                'm' => format!("{:02}", self.month + 1),
                'd' => format!("{:02}", self.day),
                'e' => format!("{:2}", self.day),
                'B' => (*month).to_owned(),
                'b' => month.chars().take(3).collect(),
                'A' => (*weekday).to_owned(),
                'a' => weekday.chars().take(3).collect(),
                'j' => format!("{:03}", self.day_of_year + 1),
                'H' => format!("{hour:02}"),
                'I' => format!("{:02}", (hour + 11) % 12 + 1),
                'M' => format!("{minute:02}"),
                'S' => format!("{second:02}"),
                'p' => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
                'F' => format!("{}-{:02}-{:02}", self.year, self.month + 1, self.day),
                'T' => format!("{hour:02}:{minute:02}:{second:02}"),
                '%' => "%".to_owned(),
                _ => return None,
            });
        }
        Some(out)
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_days(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn month_days(year: u64, month: usize) -> u64 {
    match month {
        1 => 28 + u64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are those of GNU `date -u -d @SECONDS`.
    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 Thursday January 001  1 12 AM 70"),
            (951_782_399, "2000-02-28 23:59:59 Monday February 059 28 11 PM 00"),
            (951_782_400, "2000-02-29 00:00:00 Tuesday February 060 29 12 AM 00"),
            (1_000_000_000, "2001-09-09 01:46:40 Sunday September 252  9 01 AM 01"),
            (1_709_251_199, "2024-02-29 23:59:59 Thursday February 060 29 11 PM 24"),
            (4_107_542_399, "2100-02-28 23:59:59 Sunday February 059 28 11 PM 00"),
            (4_107_542_400, "2100-03-01 00:00:00 Monday March 060  1 12 AM 00"),
            (13_574_563_200, "2400-02-29 00:00:00 Tuesday February 060 29 12 AM 00"),
        ] {
            assert_eq!(Date::from_unix(seconds).format("%F %T %A %B %j %e %I %p %y").as_deref(), Some(expected));
        }
        let date = Date::from_unix(1_763_726_400);
        assert_eq!(date.format("%d %b %Y, %a%%").as_deref(), Some("21 Nov 2025, Fri%"));
        assert_eq!(date.format("%Q"), None);
        assert_eq!(date.format("%"), None);
        assert_eq!(date.format(&"x".repeat(1001)), None);
        assert!(Date::from_unix(u64::MAX).format("%F").is_some());
    }
}
