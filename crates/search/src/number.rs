//! Decimal numbers of a search and the range their precision implies.
//!
//! R4 search, section 2.1.1.4.4: `100` means 99.5 up to but not including 100.5, `100.00` means 99.995 to 100.005, and
//! `1e2` means 95 to 105. The ends are computed on the decimal digits and only then made floating point numbers, so that
//! they are the numbers closest to the true ends.

/// A number with its implicit range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Decimal {
    pub(crate) value: f64,
    pub(crate) lo: f64,
    pub(crate) hi: f64,
}

/// Reads `[+-]digits[.digits][e[+-]digits]`.
pub(crate) fn decimal(text: &str) -> Option<Decimal> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e)),
        None => (text, None),
    };
    let (negative, digits) = match mantissa.as_bytes() {
        [b'-', ..] => (true, mantissa.get(1..)?),
        [b'+', ..] => (false, mantissa.get(1..)?),
        _ => (false, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || digits.len() > 32 {
        return None;
    }
    let fraction = if digits.contains('.') { fraction } else { "" };
    let power: i32 = match exponent {
        None => 0,
        Some(e) => {
            let n = e.strip_prefix(['+', '-']).unwrap_or(e);
            if !plain(n) || n.len() > 3 {
                return None;
            }
            e.parse().ok()?
        }
    };
    let mut magnitude: i128 = format!("{whole}{fraction}").parse().ok()?;
    let mut scale = power - i32::try_from(fraction.len()).ok()?;
    // The specification reads `1e2` as 95 to 105: an exponent without a fraction counts as one digit more.
    if exponent.is_some() && fraction.is_empty() {
        magnitude = magnitude.checked_mul(10)?;
        scale -= 1;
    }
    let ten = magnitude.checked_mul(10)?;
    let signed = |n: i128| if negative { -n } else { n };
    let float = |n: i128| {
        format!("{n}e{}", scale - 1)
            .parse::<f64>()
            .ok()
            .filter(|f| f.is_finite())
    };
    let (a, b) = (float(signed(ten) - 5)?, float(signed(ten) + 5)?);
    Some(Decimal {
        value: float(signed(ten))?,
        lo: a,
        hi: b,
    })
}

/// A JSON number of a resource.
pub(crate) fn json(text: &str) -> Option<f64> {
    text.parse().ok().filter(|f: &f64| f.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_precision_is_the_range() {
        for (text, value, lo, hi) in [
            ("100", 100.0, 99.5, 100.5),
            ("100.00", 100.0, 99.995, 100.005),
            ("1e2", 100.0, 95.0, 105.0),
            ("1.0e2", 100.0, 95.0, 105.0),
            ("1.00E+2", 100.0, 99.5, 100.5),
            ("5.4", 5.4, 5.35, 5.45),
            ("5.40e-3", 0.0054, 0.005395, 0.005405),
            ("0", 0.0, -0.5, 0.5),
            ("-5", -5.0, -5.5, -4.5),
            ("+7", 7.0, 6.5, 7.5),
            ("0.1", 0.1, 0.05, 0.15),
            ("167.5", 167.5, 167.45, 167.55),
        ] {
            assert_eq!(decimal(text), Some(Decimal { value, lo, hi }), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let long = "1".repeat(40);
        for text in [
            "", "-", ".", "1.", ".5", "1e", "1e+", "e5", "1.2.3", "0x10", "NaN", "inf", "1 ", "1_0", "--1", "1e999",
            "1e9999", "١", &long,
        ] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}
