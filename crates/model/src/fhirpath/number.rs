//! Decimal numbers of FHIRPath: exact, of up to 38 digits.

use std::cmp::Ordering;
use std::fmt;

/// `mantissa` / 10^`scale`.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    mantissa: i128,
    scale: u32,
}

/// Digits kept behind the point by a division.
const DIVISION_SCALE: u32 = 12;

impl Decimal {
    /// A whole number.
    #[must_use]
    pub fn from_int(n: i64) -> Self {
        Self {
            mantissa: i128::from(n),
            scale: 0,
        }
    }

    /// Reads a JSON or FHIRPath number; `None` when it has more digits than fit.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((n, e)) => (n, e.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if !fraction.bytes().all(|b| b.is_ascii_digit()) || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        if scale >= 0 {
            (scale <= 36).then_some(Self {
                mantissa,
                scale: scale.unsigned_abs(),
            })
        } else {
            let mantissa = mantissa.checked_mul(10_i128.checked_pow(scale.unsigned_abs())?)?;
            Some(Self { mantissa, scale: 0 })
        }
    }

    fn from_f64(x: f64) -> Option<Self> {
        if x.is_finite() {
            Self::parse(&format!("{x:.12}")).map(Self::normal)
        } else {
            None
        }
    }

    fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// Without trailing zeros behind the point.
    fn normal(mut self) -> Self {
        while self.scale > 0 && self.mantissa % 10 == 0 {
            self.mantissa /= 10;
            self.scale -= 1;
        }
        self
    }

    fn at_scale(self, scale: u32) -> Option<i128> {
        self.mantissa
            .checked_mul(10_i128.checked_pow(scale.checked_sub(self.scale)?)?)
    }

    fn aligned(self, other: Self) -> Option<(i128, i128, u32)> {
        let (a, b) = (self.normal(), other.normal());
        let scale = a.scale.max(b.scale);
        Some((a.at_scale(scale)?, b.at_scale(scale)?, scale))
    }

    /// Order by value.
    #[must_use]
    pub fn order(self, other: Self) -> Option<Ordering> {
        self.aligned(other).map(|(a, b, _)| a.cmp(&b))
    }

    /// Equality rounded to the lesser precision, as `~` wants it.
    #[must_use]
    pub fn about(self, other: Self) -> bool {
        let scale = self.scale.min(other.scale);
        match (self.round(scale), other.round(scale)) {
            (Some(a), Some(b)) => a.order(b) == Some(Ordering::Equal),
            _ => false,
        }
    }

    /// Sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let (mantissa, b, scale) = self.aligned(other)?;
        Some(Self {
            mantissa: mantissa.checked_add(b)?,
            scale,
        })
    }

    /// The negative.
    #[must_use]
    pub fn negative(self) -> Self {
        Self {
            mantissa: -self.mantissa,
            ..self
        }
    }

    /// Product.
    #[must_use]
    pub fn times(self, other: Self) -> Option<Self> {
        let (a, b) = (self.normal(), other.normal());
        let scale = a.scale + b.scale;
        (scale <= 36).then_some(Self {
            mantissa: a.mantissa.checked_mul(b.mantissa)?,
            scale,
        })
    }

    /// Quotient to twelve places; `None` for a zero divisor.
    #[must_use]
    pub fn over(self, other: Self) -> Option<Self> {
        let (a, b, _) = self.aligned(other)?;
        let mantissa = a.checked_mul(10_i128.pow(DIVISION_SCALE))?.checked_div(b)?;
        Some(
            Self {
                mantissa,
                scale: DIVISION_SCALE,
            }
            .normal(),
        )
    }

    /// Whole part of the quotient.
    #[must_use]
    pub fn whole_over(self, other: Self) -> Option<i64> {
        let (a, b, _) = self.aligned(other)?;
        i64::try_from(a.checked_div(b)?).ok()
    }

    /// Remainder of [`Decimal::whole_over`].
    #[must_use]
    pub fn modulo(self, other: Self) -> Option<Self> {
        let (a, b, scale) = self.aligned(other)?;
        Some(
            Self {
                mantissa: a.checked_rem(b)?,
                scale,
            }
            .normal(),
        )
    }

    /// Rounds half away from zero to `scale` places.
    #[must_use]
    pub fn round(self, scale: u32) -> Option<Self> {
        if self.scale <= scale {
            return Some(self);
        }
        let unit = 10_i128.checked_pow(self.scale - scale)?;
        let half = if self.mantissa < 0 { -(unit / 2) } else { unit / 2 };
        Some(Self {
            mantissa: self.mantissa.checked_add(half)? / unit,
            scale,
        })
    }

    /// The whole number below, at or above: `way` is -1, 0 (towards zero) or 1.
    #[must_use]
    pub fn whole(self, way: i32) -> Option<i64> {
        let unit = 10_i128.checked_pow(self.scale)?;
        let n = match way {
            -1 => self.mantissa.div_euclid(unit),
            1 => -(-self.mantissa).div_euclid(unit),
            _ => self.mantissa / unit,
        };
        i64::try_from(n).ok()
    }

    /// A function of real numbers, to twelve places.
    pub(crate) fn real(self, f: impl Fn(f64) -> f64) -> Option<Self> {
        Self::from_f64(f(self.to_f64()))
    }

    /// A function of two real numbers.
    pub(crate) fn real2(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Option<Self> {
        Self::from_f64(f(self.to_f64(), other.to_f64()))
    }

    /// The absolute value.
    #[must_use]
    pub fn abs(self) -> Self {
        Self {
            mantissa: self.mantissa.abs(),
            ..self
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!(
            "{:0width$}",
            self.mantissa.unsigned_abs(),
            width = self.scale as usize + 1
        );
        let (whole, fraction) = digits.split_at(digits.len() - self.scale as usize);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        if fraction.is_empty() {
            write!(f, "{sign}{whole}")
        } else {
            write!(f, "{sign}{whole}.{fraction}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn arithmetic() {
        assert_eq!(d("1.50").order(d("1.5")), Some(Ordering::Equal));
        assert_eq!(d("-0.1").order(d("0")), Some(Ordering::Less));
        assert_eq!(d("1e3").to_string(), "1000");
        assert_eq!(d("12.5e-1").to_string(), "1.25");
        assert_eq!(d("0.1").plus(d("0.2")).unwrap().to_string(), "0.3");
        assert_eq!(d("1").over(d("4")).unwrap().to_string(), "0.25");
        assert!(d("1").over(d("0")).is_none());
        assert_eq!(d("-5.5").whole(-1), Some(-6));
        assert_eq!(d("-5.5").whole(1), Some(-5));
        assert_eq!(d("-5.5").whole(0), Some(-5));
        assert_eq!(d("2.345").round(2).unwrap().to_string(), "2.35");
        assert_eq!(d("5").modulo(d("3")).unwrap().to_string(), "2");
        assert!(Decimal::parse("1e999999999999").is_none());
        assert!(Decimal::parse(&"9".repeat(60)).is_none());
    }
}
