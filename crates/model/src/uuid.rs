//! UUIDs as this server makes and packs them: 36 characters, lower case (RFC 9562 section 4).

/// The 16 bytes of a lower-case hyphenated UUID; `None` for any other text, so that the text always comes back.
#[must_use]
pub fn parse(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut out = [0; 16];
    let mut digits = 0;
    for (i, c) in text.iter().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            if *c != b'-' {
                return None;
            }
            continue;
        }
        let value = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => return None,
        };
        let byte = out.get_mut(digits / 2)?;
        *byte = *byte << 4 | value;
        digits += 1;
    }
    Some(out)
}

/// The text of 16 bytes.
#[must_use]
pub fn text(bytes: &[u8; 16]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    let mut out = String::with_capacity(36);
    for (i, b) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.extend([digit(b >> 4), digit(b & 15)]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_back_is_parsed() {
        let known = "01b4468f-6a17-51a8-b95b-48956c4cfb9a";
        assert_eq!(parse(known).map(|bytes| text(&bytes)).as_deref(), Some(known));
        for other in [
            "",
            "01B4468f-6a17-51a8-b95b-48956c4cfb9a",
            "01b4468f06a17-51a8-b95b-48956c4cfb9a",
            "01b4468f-6a17-51a8-b95b-48956c4cfb9",
            "01b4468f-6a17-51a8-b95b-48956c4cfb9aa",
            "01b4468f-6a17-51a8-b95b-48956c4cfb9g",
            "01b4468f-6a17-51a8-b95b-48956c4cfbé",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
